"""Conditioning augmentation against the quality of what a cascade makes: see the README for its arguments."""

import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from experiments.disturbance.run import batches
from experiments.sampled import Row, write_rows
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from tqdm import tqdm

import langevin
from langevin.assembly.run import make_evaluation, open_data, training_set
from langevin.config.validate import CONF
from langevin.data.cache import CachedSamples
from langevin.evaluation.evaluation import Evaluation

SEEDS = (0, 1)
NUMBER = 300
CHOICES = {"sampler": "dpm_solver_2m", "steps": 10, "batch_size": 250, "device": "cpu"}
BASES = {"base": "base model, 500 steps", "weak": "base model, 60 steps", "real": "small images of data"}
LEVELS = {
    "none": ((0.0, False),),
    "half": (*((s, False) for s in (0.0, 0.1, 0.3, 0.5)), *((s, True) for s in (0.1, 0.3))),
    "whole": tuple((s, False) for s in (0.0, 0.3, 1.0)),
}
"""By how the stage that enlarges was trained, see the README: the levels s at sampling, and whether truncated."""
TITLES = {"none": "no augmentation", "half": "levels up to 0.5", "whole": "levels up to 1"}
COLOURS = {"none": "C0", "half": "C1", "whole": "C2"}
HERE = Path(__file__).parent


class Cell(NamedTuple):
    """What is sampled from.

    Attributes:
        base: what the small images are of.
        augmentation: of the stage that enlarges.
        level: of the noise.
        truncated: whether that is left in the small images.
        seed: of the trainings and the samples.
    """

    base: str
    augmentation: str
    level: float
    truncated: bool
    seed: int


def cells() -> Iterator[Cell]:
    """All of them."""
    for base in BASES:
        for augmentation, levels in LEVELS.items():
            for level, truncated in levels:
                if base != "real" or level == 0:
                    yield from (Cell(base, augmentation, level, truncated, seed) for seed in SEEDS)


def main(outputs: str) -> None:
    """Sample from every cascade; write results.csv and results.png."""
    runs = Path(outputs)
    options = ["data=digits", "metrics=[fid,class_accuracy]", "features=classifier"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", [*options, f"features.checkpoint={runs / 'classifier'}"])
    data = open_data(cfg)
    evaluation = make_evaluation(cfg)
    labels = torch.arange(NUMBER) % 10
    evaluation.prepare(NUMBER, training_set(data), {"label": labels})
    evaluation.gather()
    real = spread(data.train_set)
    rows: list[Row] = []
    for cell in tqdm(list(cells())):
        values = measured(evaluation, sampled(cell, runs, real), labels)
        rows.append({**cell._asdict(), **values})
    write_rows(HERE / "results.csv", rows)
    print("the data itself:", measured(evaluation, real, labels))
    draw(rows)


def spread(data: CachedSamples) -> NDArray[np.uint8]:
    """As many digits of each class, in turn, evenly over the data, in which those of one writer are together."""
    own = [np.flatnonzero(data.labels == label) for label in range(10)]
    chosen = [places[np.arange(NUMBER // 10) * len(places) // (NUMBER // 10)] for places in own]
    return data.samples[np.stack(chosen, axis=1).flatten()]


def sampled(cell: Cell, runs: Path, real: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The samples (N, 8, 8, 1) of a cell, every class in turn."""
    up = runs / f"{cell.augmentation}_{cell.seed}"
    if cell.base != "real":
        chain = langevin.cascade([runs / f"{cell.base}_{cell.seed}", up])
        chosen = {"noise_level": cell.level, "truncated": cell.truncated, "seed": cell.seed, **CHOICES}
        return chain.sample(NUMBER, **chosen).samples
    means = real.reshape(NUMBER, 4, 2, 4, 2, 1).astype(float).mean((2, 4)).round().astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "small.npz", arr_0=means, arr_1=np.arange(NUMBER) % 10)
        options = [f"low_res.images={folder}/small.npz", f"low_res.noise_level={cell.level}"]
        return langevin.load(up).sample(NUMBER, seed=cell.seed, overrides=options, **CHOICES).samples


def measured(evaluation: Evaluation, images: NDArray[np.uint8], labels: torch.Tensor) -> Row:
    """The Frechet distance of samples to the training digits, and how many a classifier names right."""
    found = evaluation.measure(batches(images, {"label": labels}, 250), None).values
    return {"class_accuracy" if name == "class_accuracy" else "fd": value for name, value in found.items()}


def draw(rows: list[Row]) -> None:
    """Write results.png: the Frechet distance against the level at sampling."""
    figure, axes = plt.subplots(1, len(BASES), figsize=(10, 3.2), sharey=True, layout="constrained")
    for axis, (base, title) in zip(axes, BASES.items(), strict=True):
        own = [row for row in rows if row["base"] == base]
        for (augmentation, truncated), of_line in groupby(own, lambda row: (row["augmentation"], row["truncated"])):
            by_level = {s: [float(row["fd"]) for row in each] for s, each in groupby(of_line, lambda row: row["level"])}
            values = list(by_level.values())
            label = TITLES[str(augmentation)] + (", truncated" if truncated else "")
            style = {"color": COLOURS[str(augmentation)], "linestyle": "--" if truncated else "-", "label": label}
            axis.errorbar(
                list(by_level), [mean(v) for v in values], [stdev(v) for v in values], marker="o", ms=3, **style
            )
        axis.set(title=title, xlabel="level s at sampling", yscale="log", xlim=(-0.05, 1.05))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("FD, features of a classifier")
    axes[0].legend(fontsize=7)
    figure.savefig(HERE / "results.png", dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
