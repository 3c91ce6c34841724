"""The results as tables and as a chart."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from langevin.files import write_atomically, write_json

BEGIN, END = "<!-- results -->\n", "<!-- end of results -->\n"
SPEEDS = ("langevin's speed / its (range)", "in CPU time (range)")
SHARES = ("of the network's step (range)", "in CPU time (range)")
TITLES = {"loop": "loop, logging, callbacks", "optimizer": "optimizer, which is part of the network's step"}
Row = Sequence[str]


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """Write results.json, results.md, results.png, and the tables into the folder's README, where it has a place."""
    write_json(folder / "results.json", results)
    text = tables(results)
    write_atomically(folder / "results.md", lambda file: file.write(text.encode()))
    draw(folder / "results.png", results)
    readme = folder / "README.md"
    if readme.is_file():
        before, _, rest = readme.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if end:
            whole = f"{before}{BEGIN}\n{text}\n{END}{after}"
            write_atomically(readme, lambda file: file.write(whole.encode()))


def tables(results: Mapping[str, Any]) -> str:
    """All that was measured, as Markdown."""
    sections = {
        "training": _training,
        "sampling": _sampling,
        "overheads": _overheads,
        "memory": _memory,
        "startup": _startup,
    }
    parts = [_about(results["about"]), *(make(results) for name, make in sections.items() if name in results)]
    return "\n\n".join(parts) + "\n"


def _about(about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    channels, height, width = about["shape"]
    where = f"{about['cores']} CPU cores" if about["device"] == "cpu" else about["device"]
    options = f" Options: `{' '.join(about['options'])}`." if about["options"] else ""
    return (
        f"{where}, {about['threads']} threads; {about['precision']}; batches of {about['batch_size']} images of "
        f"{channels} x {height} x {width}; {about['rounds']} rounds after {about['warm_up']} to warm up. "
        f"{versions}.{options}"
    )


def _training(results: Mapping[str, Any]) -> str:
    return _contenders("Training", results["training"])


def _sampling(results: Mapping[str, Any]) -> str:
    return _contenders(f"DDIM, {results['about']['sampling_steps']} steps", results["sampling"])


def _contenders(title: str, found: Mapping[str, Any]) -> str:
    head = [title, "parameters", "TFLOP a batch", "images/s (quartiles)", *SPEEDS, "of the peak"]
    rows = []
    for name, row in found["contenders"].items():
        speed, used = row["images_per_second"], row["utilisation"]
        rows.append(
            [
                name,
                f"{row['parameters']:,}",
                f"{row['flops'] / 1e12:.3g}",
                "{median:.3g} ({lower_quartile:.3g} to {upper_quartile:.3g})".format(**speed),
                *_speeds(name, row),
                "unknown" if used is None else f"{used['median']:.0%}",
            ]
        )
    lines = [markdown(head, rows)]
    if found["difference_to_diffusers"] is not None:
        difference = f"{found['difference_to_diffusers']:.1e}"
        lines.append(f"Given the same weights, diffusers' network differs from ours by {difference} of its output.")
    lines += [f"Left out: {name} ({reason})." for name, reason in found["skipped"].items()]
    return "\n\n".join(lines)


def _speeds(name: str, row: Mapping[str, Any]) -> list[str]:
    if name == "langevin":
        return ["", ""]
    return ["{median:.3f} ({min:.3f} to {max:.3f})".format(**row[f"langevin_over_it{kind}"]) for kind in ("", "_cpu")]


def _overheads(results: Mapping[str, Any]) -> str:
    rows = []
    for name, part in results["overheads"].items():
        if name != "network alone":
            title = TITLES.get(name, name)
            rows.append([title, f"{1000 * median(part['cpu_seconds']):.3g}", *_shares(part, lambda share: share)])
    training = results.get("training")
    if training is not None:
        rows.append(
            [
                "all, measured: a fit's step less the network's",
                "",
                *_shares(training["over_network_alone"], lambda share: share - 1),
            ]
        )
    table = markdown(["Beside the network", "ms of CPU", *SHARES], rows)
    if training is None or training["checkpoint"] is None:
        return table
    seconds, every = (training["checkpoint"][name] for name in ("seconds", "every_seconds"))
    return f"{table}\n\nA checkpoint takes {seconds:.2g} s, every {every:.0f} s or more: {seconds / every:.1%}."


def _shares(part: Mapping[str, Any], as_share: Callable[[float], float]) -> list[str]:
    cells = []
    for kind in ("", "_cpu"):
        values = {name: as_share(value) for name, value in part[f"share{kind}"].items()}
        cells.append("{median:.2%} ({min:.2%} to {max:.2%})".format(**values))
    return cells


def _memory(results: Mapping[str, Any]) -> str:
    training, sampling = results["memory"]["training"], results["memory"]["sampling"]
    rows = [[name, _gigabytes(training.get(name)), _gigabytes(sampling.get(name))] for name in training]
    return markdown(["Peak of memory", "training", "sampling"], rows)


def _gigabytes(number: int | None) -> str:
    return "" if number is None else f"{number / 1e9:.2f} GB"


def _startup(results: Mapping[str, Any]) -> str:
    rows = [[name, f"{median(row['seconds']):.1f} s", *_speeds(name, row)] for name, row in results["startup"].items()]
    return markdown(["Command to the end of the first step", "", *SPEEDS], rows)


def markdown(head: Row, rows: Sequence[Row]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def draw(path: Path, results: Mapping[str, Any]) -> None:
    """Two bars a contender: how fast langevin is, by the clock and in CPU time, with their range over the rounds."""
    import matplotlib.pyplot as plt

    rows = dict(reversed(list(_rows(results))))
    if not rows:
        return
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.55 * len(rows)), layout="constrained")
    for kind, title, offset in (("_cpu", "in CPU time", -0.2), ("", "by the clock", 0.2)):
        ratios = [row[f"langevin_over_it{kind}"] for row in rows.values()]
        middle = [ratio["median"] for ratio in ratios]
        off = [
            [ratio["median"] - ratio["min"] for ratio in ratios],
            [ratio["max"] - ratio["median"] for ratio in ratios],
        ]
        places = [position + offset for position in range(len(rows))]
        axis.barh(places, middle, 0.38, xerr=off, capsize=3, alpha=0.7, label=title)
        for place, value in zip(places, middle, strict=True):
            axis.text(0.02, place, f"{value:.2f}", va="center", color="white", fontweight="bold")
    axis.set_yticks(range(len(rows)), labels=list(rows))
    axis.axvline(1, color="black", linewidth=0.8)
    highest = max(row["langevin_over_it"]["median"] for row in rows.values())
    axis.set(xlabel="speed of langevin, relative to each; whiskers: range over the rounds", xlim=(0, 1.5 * highest))
    axis.legend(loc="lower right", reverse=True)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))
    plt.close(figure)


def _rows(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for part in ("training", "sampling"):
        for name, row in results.get(part, {}).get("contenders", {}).items():
            if name != "langevin":
                yield f"{part}: {name}", row
