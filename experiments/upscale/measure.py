"""What a super-resolution model of digits makes of small held-out digits, beside what needs no model.

Usage: ``python -m experiments.upscale.measure RUN [--steps=N] [--out=FIGURE.png]``. It ends with status 1 where the
model is worse than the README says.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from experiments.latents.pca import psnr
from numpy.typing import NDArray
from torch.nn import functional

import langevin
from langevin.data.digits import Digits
from langevin.modalities.image import ImageModality

SIZE = 4
LEVELS = 16
"""Of scikit-learn's digits, in whose units consistency is given."""
SHOWN = 20
BOUNDS = {"consistency": 0.3, "accuracy": 0.0}
"""The greatest consistency, and the least accuracy above that of bilinear enlargement."""
Images = NDArray[np.uint8]


def small_of(images: Images) -> Images:
    """The mean of each 2x2 pixels of digits (N, 8, 8, 1), rounded: (N, 4, 4, 1)."""
    means = images.reshape(-1, SIZE, 2, SIZE, 2, 1).astype(float).mean((2, 4))
    return means.round().astype(np.uint8)


def bilinear(small: Images) -> Images:
    """Digits enlarged to twice their side without a model."""
    tensor = torch.from_numpy(small).movedim(-1, 1).double()
    enlarged = functional.interpolate(tensor, scale_factor=2, mode="bilinear", align_corners=False)
    return enlarged.round().to(torch.uint8).movedim(1, -1).numpy()


def accuracy(images: Images, labels: NDArray[np.int64]) -> float:
    """The share that a support vector machine, fitted on the training digits, classifies correctly."""
    from sklearn.svm import SVC

    train = Digits().load("train")
    classifier = SVC(C=10.0, kernel="rbf", gamma="scale").fit(train.lazy.array.reshape(-1, 64) / 255, train.labels)
    return float((classifier.predict(images.reshape(-1, 64) / 255) == labels).mean())


def consistency(images: Images, small: Images) -> float:
    """How far digits, made small again, are off the small ones, on average: in levels of 16."""
    again = images.reshape(-1, SIZE, 2, SIZE, 2, 1).astype(float).mean((2, 4))
    return float(np.abs(again - small).mean()) * LEVELS / 255


def upscaled(run: Path, small: Images, steps: int | None = None) -> Images:
    """What a run makes of small digits."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "small.npz", arr_0=small)
        options = [f"low_res.images={folder}/small.npz"]
        made = langevin.load(run).sample(len(small), steps=steps, batch_size=250, device="cpu", overrides=options)
    return made.samples.astype(np.uint8)


def measured(run: Path, steps: int | None = None) -> tuple[dict[str, Images], dict[str, dict[str, float]]]:
    """The 297 held-out digits by what they are, and of each kind its values, by their names."""
    test = Digits().load("test")
    assert test.labels is not None
    digits = test.lazy.array[..., None]
    small = small_of(digits)
    kinds = {
        "repeated": small.repeat(2, axis=1).repeat(2, axis=2),
        "bilinear": bilinear(small),
        "model": upscaled(run, small, steps),
    }
    values = {
        name: {
            "psnr": psnr(images.reshape(-1, 64).astype(float), digits.reshape(-1, 64).astype(float)),
            "consistency": consistency(images, small),
            "accuracy": accuracy(images, test.labels),
        }
        for name, images in kinds.items()
    }
    return {**kinds, "original": digits}, {**values, "original": {"accuracy": accuracy(digits, test.labels)}}


def main() -> None:
    """Print the values, and compare them with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    kinds, values = measured(options.run, options.steps)
    for name, row in values.items():
        print(f"{name:9} " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if options.out is not None:
        shown = {name: torch.from_numpy(images[:SHOWN]).movedim(-1, 1) for name, images in kinds.items()}
        ImageModality().beside(shown, 20).write(options.out)
    model, plain = values["model"], values["bilinear"]
    good = model["consistency"] <= BOUNDS["consistency"] and model["accuracy"] - plain["accuracy"] > BOUNDS["accuracy"]
    print("within the bounds" if good else f"OUTSIDE of the bounds {BOUNDS}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
