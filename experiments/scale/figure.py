"""Draws `results.csv`: cost against the number of runs and of images, and prints the slopes of the logarithms.

Usage: ``python -m experiments.scale.figure``
"""

import csv
from itertools import pairwise
from math import log
from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).parent


def main() -> None:
    """Draw the figure."""
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    with (HERE / "results.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            lines.setdefault((row["what"], row["version"]), []).append((int(row["number"]), float(row["seconds"])))
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    colours = dict(zip(dict.fromkeys(what for what, _ in lines), ("C0", "C1", "C2"), strict=True))
    for (what, version), points in lines.items():
        style = "o-" if version == "now" else "o--"
        axes.loglog(*zip(*points, strict=True), style, color=colours[what], label=f"{what}, {version}")
        slopes = [log(t / s) / log(m / n) for (n, s), (m, t) in pairwise(points)]
        print(f"{what}, {version}: slopes " + ", ".join(f"{slope:.2f}" for slope in slopes))
    axes.set(xlabel="number of runs, of images", ylabel="CPU seconds")
    axes.grid(which="major", alpha=0.3)
    axes.legend()
    figure.savefig(HERE / "results.png", dpi=100)


if __name__ == "__main__":
    main()
