"""The results as tables and charts."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.gpu.train import CURVES
from experiments.speed.report import markdown
from experiments.speed.report import tables as speed_tables

from langevin.files import write_atomically

Results = Mapping[str, Any]


def write(folder: Path, results: Results) -> None:
    """Write results.md and, of what there is, speed.png and curves.png."""
    text = tables(results)
    write_atomically(folder / "results.md", lambda file: file.write(text.encode()))
    draw_speed(folder / "speed.png", results.get("speed", {}))
    if (folder / CURVES).is_file():
        draw_curves(folder / "curves.png", folder / CURVES)


def tables(results: Results) -> str:
    """All that is known, as Markdown."""
    sections = {"about": _about, "check": _check, "speed": _speed, "train": _train}
    parts = [part for name, make in sections.items() if name in results for part in make(results[name])]
    return "\n\n".join(parts) + "\n"


def _about(about: Results) -> Iterator[str]:
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    memory = f", {about['memory_gb']} GB" if "memory_gb" in about else ""
    yield f"{about['device']}{memory}, {about['cores']} CPU cores. {versions}; langevin {about['code']}."


def _check(check: Results) -> Iterator[str]:
    counts = {outcome: sum(test["outcome"] == outcome for test in check["tests"]) for outcome in ("passed", "failed")}
    yield f"## check\n\n{_ended(check)} {counts['passed']} passed, {counts['failed']} failed."
    rows = []
    for test in check["tests"]:
        figures = ", ".join(f"{name} {_shown(value)}" for name, value in test["figures"].items())
        outcome = figures or (test["message"] if test["outcome"] != "passed" else "")
        rows.append([test["test"].partition("::")[2], test["outcome"], f"{test['seconds']:.1f}", _cell(outcome)])
    yield markdown(["test", "outcome", "s", "figures"], rows)


def _speed(speed: Results) -> Iterator[str]:
    yield "## speed"
    for name, part in speed.items():
        title = f"### {name}\n\n{_ended(part)}"
        if "results" not in part:
            yield title
        elif name == "kernels":
            yield f"{title}\n\n{_kernels(part['results'])}"
        else:
            yield f"{title}\n\n{speed_tables(part['results']).strip()}"


def _kernels(found: Results) -> str:
    lines = [f"A step of a fit takes {1e3 * found['seconds_per_step']:.2f} ms"]
    if found["idle_share"] is not None:
        lines.append(f"the GPU is at work for {1e3 * found['busy_seconds_per_step']:.2f} ms of it")
        lines.append(f"and idle for {found['idle_share']:.1%}; {found['kernels_per_step']:.0f} kernels a step")
        lines.append(f"at most {found['peak_memory_gb']} GB of memory")
    rows = [
        [f"`{_cell(row['name'])[:90]}`", f"{row['share']:.1%}", f"{row['ms_per_step']:.2f}", f"{row['calls']:.0f}"]
        for row in found["longest"]
    ]
    return f"{', '.join(lines)}.\n\n{markdown(['longest', 'of the time', 'ms a step', 'calls a step'], rows)}"


def _train(train: Results) -> Iterator[str]:
    commands = [part for part in train.values() if isinstance(part, Mapping) and "command" in part]
    yield "## train\n\n" + "\n".join(f"- {_ended(part)}" for part in commands)
    if "images" in train:
        seconds = train["seconds_of_training"]
        rate = train["images"] / seconds
        yield f"{train['images']:,} images in {seconds:.0f} s, start-up included: {rate:,.0f} a second."
    if "metrics" in train:
        yield markdown(
            ["metric", "value"], [[name, f"{value:.5g}"] for name, value in train["metrics"]["metrics"].items()]
        )


def _ended(part: Results) -> str:
    ends = {0: "done", None: "stopped, its time was over"}
    return f"`{part['command']}`: {ends.get(part['status'], 'failed')}, {part['seconds']:.0f} s."


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def draw_speed(path: Path, speed: Results) -> None:
    """A bar for each contender of each measurement: its images a second."""
    import matplotlib.pyplot as plt

    bars = [
        (f"{name}, {part}: {contender}", row["images_per_second"])
        for name, found in speed.items()
        for part in ("training", "sampling")
        for contender, row in found.get("results", {}).get(part, {}).get("contenders", {}).items()
    ]
    if not bars:
        return
    names, rates = zip(*reversed(bars), strict=True)
    middle = [rate["median"] for rate in rates]
    off = [[rate["median"] - rate["min"] for rate in rates], [rate["max"] - rate["median"] for rate in rates]]
    figure, axis = plt.subplots(figsize=(9, 1 + 0.32 * len(bars)), layout="constrained")
    colours = ["tab:blue" if name.endswith(": langevin") else "tab:gray" for name in names]
    axis.barh(names, middle, xerr=off, capsize=3, color=colours)
    axis.set(xlabel="images a second; whiskers: range over the rounds", xscale="log")
    for position, value in enumerate(middle):
        axis.text(value, position, f"  {value:,.0f}", va="bottom", fontsize=7)
    _save(figure, path)


def draw_curves(path: Path, table: Path) -> None:
    """Loss and images a second of the run against its steps."""
    import matplotlib.pyplot as plt

    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    panels = [
        ("train/loss", "loss"),
        ("train/grad_norm", "gradient norm"),
        ("train/images_per_second", "images a second"),
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.2), layout="constrained")
    for axis, (column, title) in zip(axes, panels, strict=True):
        steps, values = _column(rows, column)
        axis.plot(steps, values, linewidth=0.8)
        axis.set(xlabel="step", title=title)
    axes[0].set_yscale("log")
    axes[2].set_ylim(bottom=0)
    _save(figure, path)


def _column(rows: Sequence[Mapping[str, str]], name: str) -> tuple[list[int], list[float]]:
    there = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
    return [step for step, _ in there], [value for _, value in there]


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))
    plt.close(figure)
