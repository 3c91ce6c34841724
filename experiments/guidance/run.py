"""Fidelity and diversity against the scale, for every guidance: see the README for its arguments."""

import sys
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import torch
from experiments.sampled import Row, Sampled, Samples, write_rows
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from tqdm import tqdm

from langevin.images import image_grid, write_png

SEEDS = (0, 1, 2)
NUMBER = 300
CHOICES = ("sampler=ddim", "sampler.steps=25", "timestep_spacing=trailing", "thresholding=static")
NEIGHBOURS = 3
MEASURES = {
    "class_accuracy": "share of the digits named right",
    "pairwise_distance": "distance between two of a class",
    "recall": "recall: share of real digits among the samples",
}
HERE = Path(__file__).parent


def main(conditional: str, unconditional: str, classifier: str, weaker: str) -> None:
    """Sample at every scale; write results.csv, results.png and samples.png."""
    conditional_model, unconditional_model = (Sampled(Path(run), NUMBER) for run in (conditional, unconditional))
    by_classifier = ("guidance=classifier", f"guidance.classifier={classifier}")
    arms = {
        "classifier_free": (conditional_model, (1, 1.5, 2, 4, 8), ("guidance=classifier_free",)),
        "classifier, of an unconditional model": (unconditional_model, (0, 1, 2, 4, 8, 16), by_classifier),
        "classifier, of a conditional model": (conditional_model, (0, 2, 8), by_classifier),
        "autoguidance": (conditional_model, (1, 1.5, 2, 4), ("guidance=autoguidance", f"guidance.weaker={weaker}")),
    }
    rows: list[Row] = []
    made_images = []
    for name, (sample, scales, choices) in arms.items():
        for scale in tqdm(scales, name):
            for seed in SEEDS:
                made = sample(*CHOICES, *choices, f"guidance.scale={scale}", seed=seed)
                rows.append({"guidance": name, "scale": scale, "seed": seed} | measure(made, sample))
                if seed == SEEDS[0] and scale in (scales[0], scales[-1]):
                    made_images.append(made.images[:20])
    write_rows(HERE / "results.csv", rows)
    write_png(HERE / "samples.png", image_grid(torch.cat(made_images).permute(0, 3, 1, 2), 20), scale=4)
    halves = measure(Samples(sample.real[::2], sample.real_labels[::2], 1.0, 0), sample, sample.real[1::2])
    print("half of the data against the other:", halves)
    draw(rows)


def measure(made: Samples, sample: Sampled, real: Tensor | None = None) -> Row:
    """The measures of some samples against real images, all of them or those given."""
    fake, real = (pixels(images) for images in (made.images, sample.real if real is None else real))
    distances = [torch.pdist(fake[made.labels == label]).mean() for label in made.labels.unique()]
    # Kynkaanniemi et al. 2019: a real image is covered that lies nearer to a sample than its k-th neighbour among them.
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(fake)
    radii = torch.from_numpy(neighbours.kneighbors(fake)[0][:, -1])
    covered = (torch.cdist(real, fake) <= radii).any(1)
    values = (made.accuracy, float(torch.stack(distances).mean()), float(covered.double().mean()))
    return {name: round(value, 4) for name, value in zip(MEASURES, values, strict=True)}


def pixels(images: Tensor) -> Tensor:
    """Images uint8 (N, H, W, C) as rows in [-1, 1]."""
    return images.flatten(1).double() / 127.5 - 1


def draw(rows: list[Row]) -> None:
    """One line a guidance: each measure against the scale, mean and standard deviation over the seeds."""
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(14, 4.4), layout="constrained")
    for name, own in groupby(rows, lambda row: row["guidance"]):
        by_scale = {scale: list(each) for scale, each in groupby(own, lambda row: float(row["scale"]))}
        for axis, measured in zip(axes, MEASURES, strict=True):
            values = [[float(row[measured]) for row in each] for each in by_scale.values()]
            axis.errorbar(
                list(by_scale),
                [mean(v) for v in values],
                [stdev(v) for v in values],
                marker="o",
                markersize=3,
                label=name,
            )
    for axis, title in zip(axes, MEASURES.values(), strict=True):
        axis.set(xlabel="scale", title=title, xscale="symlog")
        axis.set_xticks([0, 1, 2, 4, 8, 16], labels=["0", "1", "2", "4", "8", "16"])
        axis.xaxis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=8)
    figure.savefig(HERE / "results.png", dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
