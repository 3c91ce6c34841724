"""The table and the figure of what was measured."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
from experiments.time_to_quality.measuring import Row
from matplotlib.ticker import NullFormatter

COLOURS = {"langevin": "C0", "diffusers": "C1", "lucidrains": "C2"}
TICKS = (5, 10, 15, 30, 60, 120, 240, 600)
"""CPU seconds."""
STYLES = {"dpm_solver_2m": "-", "ddim": ":"}


def curves(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str, int], list[Row]]]:
    """The rows of each contender, sampler and seed, by their CPU seconds."""

    def key(row: Row) -> tuple[str, str, int]:
        return row["who"], row["sampler"], row["seed"]

    for name, own in groupby(sorted(rows, key=lambda row: (*key(row), row["cpu_seconds"])), key):
        yield name, list(own)


def table(rows: Sequence[Row]) -> str:
    """All values in Markdown."""
    lines = [
        "| | sampler, NFE | seed | CPU s | steps | images | FD | precision | recall |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (who, sampler, seed), own in curves(rows):
        for row in own:
            cost = f"{row['cpu_seconds']:.1f} | {row['steps']:,} | {row['images']:,}"
            values = f"{row['fd']:.2f} | {row['precision']:.3f} | {row['recall']:.3f}"
            lines.append(f"| {who} | {sampler}, {row['nfe']} | {seed} | {cost} | {values} |")
    return "\n".join(lines) + "\n"


def seconds_to(rows: Sequence[Row], distance: float) -> float | None:
    """The fewest CPU seconds after which one of these has a distance at most as large; None: after none."""
    return min((row["cpu_seconds"] for row in rows if row["fd"] <= distance), default=None)


def verdict(rows: Sequence[Row]) -> str:
    """For the last weights of each peer, when ours were as good; by the same sampler, of the same seed."""
    found = dict(curves(rows))
    lines = []
    for (who, sampler, seed), own in found.items():
        of_ours = found.get(("langevin", sampler, seed))
        if who == "langevin" or of_ours is None:
            continue
        last = own[-1]
        needed = seconds_to(of_ours, last["fd"])
        until = "not reached" if needed is None else f"reached by langevin in {needed:.1f} CPU s or less"
        lines.append(
            f"- {who}, seed {seed}, {sampler}: {last['fd']:.2f} after {last['cpu_seconds']:.0f} CPU s; {until}."
        )
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Row], tried: Sequence[Row], floor: float | None, path: Path) -> None:
    """The distance against the CPU seconds; of changes of our recipe each run is a point, of real images a line."""
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    shown = set()
    for (who, sampler, _), own in curves(rows):
        x, y = ([row[name] for row in own] for name in ("cpu_seconds", "fd"))
        label = f"{who}, {sampler}"
        style = {"color": COLOURS[who], "linestyle": STYLES[sampler], "marker": "o", "ms": 4}
        axis.loglog(x, y, label=None if label in shown else label, **style)
        shown.add(label)
    if tried:
        x, y = ([row[name] for row in tried] for name in ("cpu_seconds", "fd"))
        axis.loglog(x, y, "^", color=COLOURS["langevin"], ms=4, alpha=0.5, label="changes of langevin's recipe")
    if floor is not None:
        axis.axhline(floor, color="0.4", linestyle="--", label="as many held-out images")
    axis.set(xlabel="CPU seconds of training, one thread", ylabel="FD, features of a classifier")
    first, last = axis.get_xlim()
    axis.set_xticks(ticks := [tick for tick in TICKS if first <= tick <= last], [f"{tick}" for tick in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8, loc="upper right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(folder: Path, rows: Sequence[Row]) -> None:
    """Write results.md and results.png, which shows the folder's tried.json and floor.json too, where there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(f"{table(rows)}\n{verdict(rows)}")
    changes, floor = (
        json.loads(file.read_text()) if (file := folder / name).exists() else None
        for name in ("tried.json", "floor.json")
    )
    runs = [run for runs in (changes or {}).values() for run in runs.values()]
    draw(rows, runs, None if floor is None else mean(draw["fd"] for draw in floor), folder / "results.png")
