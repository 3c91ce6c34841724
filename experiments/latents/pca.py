"""How well principal components reconstruct held-out digits, with as many numbers as the autoencoder's latents.

Usage: ``python -m experiments.latents.pca``
"""

import numpy as np
from numpy.typing import NDArray

from langevin.data.digits import Digits

NUMBERS = 32
"""4 x 4 x 2, as the latents of experiment=digits_autoencoder."""


def psnr(made: NDArray[np.float64], images: NDArray[np.float64]) -> float:
    """The mean of the images' PSNR in dB, after rounding to bytes, as `metrics=[psnr]` computes it."""
    errors = np.square(made.round().clip(0, 255) - images).mean(1)
    return float(np.mean(10 * np.log10(255**2 / errors)))


def projected(train: NDArray[np.float64], test: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """Test vectors as the training vectors' first principal components give them back."""
    mean = train.mean(0)
    *_, directions = np.linalg.svd(train - mean, full_matrices=False)
    basis = directions[:number]
    return mean + (test - mean) @ basis.T @ basis


def main() -> None:
    """Print the PSNR of components of whole images, and of each 2x2 pixels."""
    train, test = (Digits().load(split).lazy.array.reshape(-1, 64).astype(float) for split in ("train", "test"))
    print(f"{NUMBERS} components of whole images: {psnr(projected(train, test, NUMBERS), test):.2f} dB")

    def patches(images: NDArray[np.float64]) -> NDArray[np.float64]:
        return images.reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4)

    made = projected(patches(train), patches(test), NUMBERS // 16)
    whole = made.reshape(-1, 4, 4, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 64)
    print(f"{NUMBERS // 16} components of each 2x2 pixels: {psnr(whole, test):.2f} dB")


if __name__ == "__main__":
    main()
