"""Draws `results.csv`: cost against the number of runs, of images and of processes, and prints the slopes.

Usage: ``python -m experiments.scale.figure``; the slopes are those of the logarithms
"""

import csv
from itertools import pairwise
from math import log
from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).parent


def main() -> None:
    """Draw the figure, a panel for each kind of number and unit."""
    panels: dict[str, dict[tuple[str, str], list[tuple[int, float]]]] = {}
    with (HERE / "results.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            line = panels.setdefault(row["panel"], {}).setdefault((row["what"], row["version"]), [])
            line.append((int(row["number"]), float(row["value"])))
    figure, places = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for axes, (panel, lines) in zip(places.flat, panels.items(), strict=True):
        colours = {what: f"C{number}" for number, what in enumerate(dict.fromkeys(what for what, _ in lines))}
        for (what, version), points in lines.items():
            style = "o-" if version == "now" else "o--"
            axes.loglog(*zip(*points, strict=True), style, color=colours[what], label=f"{what}, {version}")
            slopes = [log(t / s) / log(m / n) for (n, s), (m, t) in pairwise(points)]
            print(f"{panel}: {what}, {version}: slopes " + ", ".join(f"{slope:.2f}" for slope in slopes))
        number, unit = panel.rstrip(")").split(" (")
        axes.set(xlabel=f"number of {number}", ylabel=unit)
        if unit == "MiB":
            axes.set_ylim(100, 10_000)
        axes.grid(which="major", alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(HERE / "results.png", dpi=90)


if __name__ == "__main__":
    main()
