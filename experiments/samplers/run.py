"""Quality against evaluations, for every sampler: `python -m experiments.samplers.run outputs/NAME`."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
from experiments.sampled import Row, Sampled, write_rows
from torch import Tensor
from tqdm import tqdm

from langevin.config.validate import options
from langevin.metrics.fid import frechet_distance, rooted_rows

STEPS = (5, 10, 20, 40)
CHOICES = ("timestep_spacing=karras", "thresholding=none", "guidance=none")
HERE = Path(__file__).parent


def main(run: Path) -> None:
    """Sample with every sampler and every number of steps; write results.csv and results.png."""
    sample = Sampled(run, number=500)
    rows = []
    for sampler in tqdm(options("sampler")):
        for steps in STEPS:
            made = sample(*CHOICES, f"sampler={sampler}", f"sampler.steps={steps}")
            row: Row = {"sampler": sampler, "steps": steps, "evaluations": made.evaluations}
            row |= {"class_accuracy": round(made.accuracy, 4)}
            rows.append(row | {"frechet_distance_of_pixels": round(distance(made.images, sample.real), 4)})
    write_rows(HERE / "results.csv", rows)
    halves = distance(sample.real[::2], sample.real[1::2])
    print(f"between the halves of the data: {halves:.4f}")
    draw(rows, halves)


def distance(a: Tensor, b: Tensor) -> float:
    """The Frechet distance of the pixels, in [-1, 1], of images uint8 (N, H, W, C)."""
    rows = [images.flatten(1).double() / 127.5 for images in (a, b)]
    return float(frechet_distance(*map(rooted_rows, rows)))


def draw(rows: list[Row], halves: float) -> None:
    """One line a sampler: the distance and the share named right, against evaluations."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    styles = [(color, style) for style in ("-", "--") for color in plt.colormaps["tab10"].colors[:7]]
    for sampler, (color, style) in zip(options("sampler"), styles, strict=False):
        own = [row for row in rows if row["sampler"] == sampler]
        for axis, value in zip(axes, ("frechet_distance_of_pixels", "class_accuracy"), strict=True):
            x, y = ([row[name] for row in own] for name in ("evaluations", value))
            axis.plot(x, y, style, color=color, marker="o", markersize=3, label=sampler)
    axes[0].axhline(halves, color="black", linewidth=0.8, linestyle=":", label="data against data")
    for axis, title in zip(axes, ("Frechet distance of the pixels", "share of the digits named right"), strict=True):
        axis.set(xscale="log", xlabel="evaluations of the network", title=title)
        axis.grid(alpha=0.3)
        axis.set_xticks([5, 10, 20, 40, 80], labels=["5", "10", "20", "40", "80"])
        axis.xaxis.minorticks_off()
    axes[0].set(yscale="log")
    axes[0].set_yticks([0.4, 0.6, 1, 2, 4, 6], labels=["0.4", "0.6", "1", "2", "4", "6"])
    axes[0].yaxis.minorticks_off()
    axes[0].legend(fontsize=8, ncols=2)
    figure.savefig(HERE / "results.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
