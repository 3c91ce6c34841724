"""What models of cars make of held-out cars: enlarged, filled in, edited, and of their edges alone.

Usage: ``python -m experiments.cars.measure RUNS CLASSIFIER [--images=N] [--draws=N] [--out=FOLDER]``. RUNS holds the
runs of README.md, CLASSIFIER is that of the distance of features. Writes results.csv and the four figures, and prints
the table.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional

import langevin
from langevin.assembly.run import make_data
from langevin.assembly.saved import classifier_for_features
from langevin.conditions.hint import Hint
from langevin.images import GridLabels, from_uint8, labelled_grid
from langevin.metrics.psnr import PSNR
from langevin.metrics.ssim import SSIM
from langevin.perceptual.classifier import ClassifierDistance

SIZE, SMALL = 40, 10
BOX = slice(SIZE // 4, 3 * SIZE // 4)
"""The rows and columns of what is unknown: a quarter of the image, in its middle."""
STRENGTHS = (0.5, 0.7, 0.9)
SHOWN, SCALE, STEPS = 10, 2, 25
GREY = 127
HINT = Hint(kind="edges", threshold=None, dropout=0.0, image_size=SIZE)
FIELDS = ("task", "images", "psnr", "ssim", "distance", "correlation", "consistency")
Images = NDArray[np.uint8]
Rows = list[dict[str, str | float]]


class Cars:
    """Held-out cars, what models make of them, and how that compares.

    Args:
        runs: the folder of the runs.
        classifier: the run of the distance of features.
        number: how many cars.
        draws: how many samples are averaged.
    """

    def __init__(self, runs: Path, classifier: Path, number: int, draws: int) -> None:
        self.runs, self.number, self.draws = runs, number, draws
        self.samples = runs / "cars_samples"
        self.samples.mkdir(exist_ok=True)
        data = make_data(DictConfig(langevin.load(runs / "cars_small").config))
        data.prepare_data()
        assert data.test_set is not None
        self.cars: Images = np.array(data.test_set.samples[:number])
        self.distance = ClassifierDistance(classifier_for_features, str(classifier))
        self.rows: Rows = []

    def made(self, run: str, *options: str, seed: int = 0, **files: Images) -> Images:
        """What a run makes, taken from the folder of samples where it is there.

        Args:
            run: its name.
            *options: overrides of ``langevin sample``.
            seed: of the samples.
            **files: images for the options of their names, with __ in place of a dot.
        """
        words = [run, *(option.replace("/", "_") for option in options), str(seed), str(self.number)]
        kept = self.samples / f"{'-'.join(words)}.npy"
        if not kept.exists():
            with tempfile.TemporaryDirectory() as folder:
                given = []
                for name, images in files.items():
                    np.savez(Path(folder) / f"{name}.npz", arr_0=images)
                    given.append(f"{name.replace('__', '.')}={folder}/{name}.npz")
                sample = langevin.load(self.runs / run).sample
                overrides = [*options, *given]
                made = sample(self.number, steps=STEPS, seed=seed, batch_size=64, device="cpu", overrides=overrides)
            np.save(kept, made.samples.astype(np.uint8))
        return np.load(kept)

    def draw(self, make: Callable[[int], Images]) -> tuple[dict[str, Images], Images]:
        """Samples of seed 0 and the mean of those of several seeds; and samples of seed 1."""
        draws = [make(seed) for seed in range(self.draws)]
        mean = np.mean(draws, axis=0).round().astype(np.uint8)
        return {"model": draws[0], f"model, mean of {self.draws}": mean}, draws[1]

    def compare(self, task: str, kinds: Mapping[str, Images], **more: Mapping[str, float]) -> None:
        """Keep the values of images beside the held-out cars, and further ones, by their name and kind."""
        cars = nchw(self.cars)
        for kind, images in kinds.items():
            given = nchw(images)
            with torch.no_grad():
                distance = self.distance(from_uint8(given), from_uint8(cars)).mean()
            values = {
                "psnr": float(PSNR().of_pairs(given, cars).mean()),
                "ssim": float(SSIM().of_pairs(given, cars).mean()),
                "distance": float(distance),
                **{name: each[kind] for name, each in more.items()},
            }
            self.rows.append({"task": task, "images": kind, **values})
            print(f"{task:10} {kind:24} " + "  ".join(f"{name} {value:.3f}" for name, value in values.items()))

    @property
    def others(self) -> Images:
        """Another held-out car in the place of each: how far apart cars are."""
        return np.roll(self.cars, 1, axis=0)


def nchw(images: Images) -> Tensor:
    """Images (N, H, W, C) as (N, C, H, W)."""
    return torch.from_numpy(images).movedim(-1, 1)


def small_of(images: Images) -> Images:
    """The mean of each square of pixels, rounded: (N, 10, 10, C)."""
    side = images.shape[1] // SMALL
    return images.reshape(-1, SMALL, side, SMALL, side, images.shape[3]).mean((2, 4)).round().astype(np.uint8)


def bicubic(small: Images) -> Images:
    """Images enlarged to 40 pixels without a model."""
    enlarged = functional.interpolate(nchw(small).double(), size=SIZE, mode="bicubic", align_corners=False)
    return enlarged.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).numpy()


def filled(images: Images) -> Images:
    """Images whose unknown pixels have the mean colour of the known ones."""
    known = np.ones(images.shape[1:3], bool)
    known[BOX, BOX] = False
    result = images.copy()
    result[:, BOX, BOX] = images[:, known].mean(1).round()[:, None, None]
    return result


def edges_of(images: Images) -> Tensor:
    """The edges (N, 1, H, W) in [0, 1], as hints are."""
    return HINT.hint(from_uint8(nchw(images)))


def correlation(images: Images, others: Images) -> float:
    """Of the edges of images with those of others, pixel by pixel, mean over the images."""
    pairs = (edges_of(each).flatten(1).double() for each in (images, others))
    one, two = (each - each.mean(1, keepdim=True) for each in pairs)
    return float(functional.cosine_similarity(one, two).mean())


def consistency(images: Images, small: Images) -> float:
    """How far images, made small again, are off the small ones: in grey levels of 256, on average."""
    return float(np.abs(small_of(images).astype(float) - small).mean())


def show(out: Path, kinds: Mapping[str, Images]) -> None:
    """Write the first cars, a row for each kind."""
    large = [images[:SHOWN].repeat(SCALE, axis=1).repeat(SCALE, axis=2) for images in kinds.values()]
    rows = [nchw(images) for images in large]
    labelled_grid(torch.cat(rows), len(rows[0]), GridLabels(sides=list(kinds))).write(out)


def main() -> None:
    """Measure, and write results and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("classifier", type=Path)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--draws", type=int, default=4, help="at least 2")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    cars = Cars(given.runs, given.classifier, given.images, given.draws)
    real = cars.cars

    small = small_of(real)
    made, _ = cars.draw(lambda seed: cars.made("cars_low_res", seed=seed, low_res__images=small))
    large = {"bicubic": bicubic(small), **made}
    cars.compare("upscaled", large, consistency={kind: consistency(each, small) for kind, each in large.items()})
    pixels = {"10 x 10": small.repeat(SIZE // SMALL, axis=1).repeat(SIZE // SMALL, axis=2)}
    show(given.out / "upscaled.png", {**pixels, **large, "original": real})

    mask = np.zeros((SIZE, SIZE), bool)
    mask[BOX, BOX] = True
    np.save(cars.samples / "mask.npy", mask)
    option = f"inpaint.mask={cars.samples}/mask.npy"
    made, again = cars.draw(lambda seed: cars.made("cars_inpaint", option, seed=seed, inpaint__images=real))
    pasted = real.copy()
    pasted[:, BOX, BOX] = cars.others[:, BOX, BOX]
    cars.compare("inpainted", {"mean colour": filled(real), "another car's": pasted, **made})
    known = real.copy()
    known[:, BOX, BOX] = GREY
    shown = {"known": known, "mean colour": filled(real), "model": made["model"], "seed 1": again}
    show(given.out / "inpainted.png", {**shown, "original": real})

    edited = {
        f"strength {strength}": cars.made("cars_small", f"edit.strength={strength}", edit__images=real)
        for strength in STRENGTHS
    }
    cars.compare("edited", {"copies": real, **edited, "another car": cars.others})
    show(given.out / "edited.png", {"original": real, **edited})

    hinted = cars.made("cars_edges", hint__images=real)
    second = cars.made("cars_edges", seed=1, hint__images=real)
    free = {"without hints": cars.made("cars_small")}
    kinds = {"model": hinted, **free, "another car": cars.others}
    cars.compare("of edges", kinds, correlation={kind: correlation(each, real) for kind, each in kinds.items()})
    drawn = (255 * edges_of(real)).round().to(torch.uint8).expand(-1, 3, -1, -1).movedim(1, -1).numpy()
    show(given.out / "edges.png", {"hint": drawn, "model": hinted, "seed 1": second, "original": real, **free})

    with (given.out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in row.items()}
            for row in cars.rows
        )


if __name__ == "__main__":
    main()
