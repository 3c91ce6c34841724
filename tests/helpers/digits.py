"""Scikit-learn's handwritten digits: real, labelled, 8x8, and always there."""

import numpy as np


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images (1797, 8, 8, 1) and their classes (1797,)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images * 15.9375).round().astype(np.uint8).reshape(-1, 8, 8, 1), labels
