"""The figure of a study: each seed's value, and the interval of each mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langevin.files import write_atomically
from langevin.study.cells import Grid
from langevin.study.compare import Row, rows_of
from langevin.study.estimate import CONFIDENCE
from langevin.study.results import Results

FILE = "results.png"
WIDTH = 0.7
"""What the cells of an arm take of the room between two arms."""
LOGARITHMIC = 30
"""From such a ratio of the greatest value to the least on, the axis is logarithmic."""


def draw(folder: Path, grid: Grid, results: Results) -> None:
    """Write `FILE`, a panel for each measure."""
    measures = grid.study.measures
    figure = Figure(figsize=(1 + 5 * len(measures), 4.2), layout="constrained")
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    for axis, (measure, better) in zip(panels, measures.items(), strict=True):
        others = panel(axis, rows_of(results, measure), grid.study.arms)
        arrow = "higher" if better == "up" else "lower"
        axis.set_title(f"{results.names[measure]}, {arrow} is better", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, title=others, loc="outside right upper", fontsize=8, title_fontsize=8)
    figure.supxlabel(f"points: seeds; bars: mean and its {CONFIDENCE:.0%} interval", fontsize=8)
    write_atomically(
        folder / FILE, lambda file: figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    )


def panel(axis: Axes, rows: Sequence[Row], factors: Mapping[str, Sequence[str]]) -> str:
    """Draw the factor of most arms from left to right, the arms of the others in colours.

    Returns:
        what the others are.
    """
    across = max(factors, key=lambda factor: len(factors[factor]))
    others = [", ".join(arm for factor, arm in row.arms.items() if factor != across) for row in rows]
    hues = list(dict.fromkeys(others))
    for row, other in zip(rows, others, strict=True):
        hue = hues.index(other)
        room = WIDTH / len(hues)
        place = factors[across].index(row.arms[across]) + (hue + 0.5) * room - WIDTH / 2
        points, colour = list(row.values.values()), f"C{hue % 10}"
        label = other if other not in axis.get_legend_handles_labels()[1] else None
        axis.plot([place - room / 8] * len(points), points, "o", color=colour, alpha=0.6, markersize=4, label=label)
        reach = None if row.estimate.high is None else row.estimate.high - row.estimate.mean
        axis.errorbar(place + room / 8, row.estimate.mean, reach, fmt="_", color=colour, capsize=3)
    values = [value for row in rows for value in row.values.values()]
    if 0 < LOGARITHMIC * min(values, default=0) < max(values, default=0):
        axis.set_yscale("log")
    axis.set_xticks(range(len(factors[across])), factors[across])
    axis.set_xlabel(across)
    axis.grid(axis="y", alpha=0.3)
    return ", ".join(factor for factor in factors if factor != across)
