"""FD against the relative width of the EMA, chosen after training: see the README.

Usage: ``python -m experiments.ema.widths RUN TRACKED CLASSIFIER``; writes widths.json, widths.md and widths.png.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langevin.cli import calm_threads

HERE = Path(__file__).parent
Row = dict[str, float | None]


def table(rows: Sequence[Row]) -> str:
    """All values in Markdown."""
    lines = ["| width | reconstructed | tracked | difference of the weights |", "| --- | --- | --- | --- |"]
    for row in rows:
        values = [
            "" if row[name] is None else f"{row[name]:{form}}"
            for name, form in {"reconstructed": ".2f", "tracked": ".2f", "difference": ".0e"}.items()
        ]
        lines.append(f"| {row['width']:g} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Row], path: Path) -> None:
    """The distance against the width."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
    for name, style in {"reconstructed": "o-", "tracked": "x"}.items():
        known = [row for row in rows if row[name] is not None]
        axis.semilogx([row["width"] for row in known], [row[name] for row in known], style, label=name)
    ticks = [0.01, 0.02, 0.05, 0.1, 0.2]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set(xlabel="relative width of the EMA", ylabel="FD, features of a classifier")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure samples of each width, of the EMA made of snapshots and of the one that was tracked in training."""
    asked = argparse.ArgumentParser("python -m experiments.ema.widths")
    asked.add_argument("run", type=Path, help="run with ema=power, of whose snapshots the EMAs are made")
    asked.add_argument("tracked", type=Path, help="run of the same training that has tracked other widths")
    asked.add_argument("classifier", type=Path, help="run of experiment=digits_classifier, whose features measure")
    widths = [0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25]
    asked.add_argument("--widths", type=float, nargs="+", default=widths, help=f"(default: {widths})")
    asked.add_argument("--samples", type=int, default=500, help="of each EMA (default: 500)")
    asked.add_argument("--results", type=Path, default=HERE, help="folder of the results (default: this file's)")
    options = asked.parse_args(arguments)
    calm_threads()  # before torch is imported

    import langevin

    def distance(run: langevin.Run) -> float:
        """The Frechet distance of a run's samples, from the noise of seed 0."""
        of_classifier = [f"features.checkpoint={options.classifier}"]
        choices: Mapping[str, Any] = {"sampler": "dpm_solver_2m", "steps": 20, "batch_size": 250, "device": "cpu"}
        found = run.evaluate("fid", options.samples, features="classifier", overrides=of_classifier, **choices)
        (value,) = (value for name, value in found.values.items() if name.startswith("fd"))
        return round(value, 4)

    stored = langevin.load(options.tracked).config["ema"]["widths"]
    rows: list[Row] = []
    for width in sorted(options.widths):
        made = langevin.load(options.run, ema_width=width)
        row: Row = {"width": width, "reconstructed": distance(made), "tracked": None, "difference": None}
        if width in stored:
            kept = langevin.load(options.tracked, ema_width=width)
            ours, its = ([weight.double() for weight in run.model.network.parameters()] for run in (made, kept))
            off = sum(float((a - b).square().sum()) for a, b in zip(ours, its, strict=True))
            size = sum(float(b.square().sum()) for b in its)
            row |= {"tracked": distance(kept), "difference": (off / size) ** 0.5}
        rows.append(row)
        print(json.dumps(row))
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "widths.json").write_text(json.dumps(rows, indent=1) + "\n")
    (options.results / "widths.md").write_text(table(rows))
    draw(rows, options.results / "widths.png")


if __name__ == "__main__":
    main()
