"""The table of a study: for people, for LaTeX, and every single value for programs."""

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from langevin.files import write_atomically
from langevin.study.cells import Grid
from langevin.study.compare import Difference, Row, differences_of, rows_of
from langevin.study.confounds import concerns, is_known, unacknowledged
from langevin.study.estimate import CONFIDENCE, Estimate, verdict
from langevin.study.results import Results
from langevin.visible import visible

FILES = ("table.md", "table.csv", "table.tex")
PERCENT = f"{CONFIDENCE * 100:.0f} %"
INTERVAL = f"{PERCENT} interval"
ESCAPES = str.maketrans(
    {c: f"\\{c}" for c in "_%&#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {c: f"{{{c}}}" for c in "[*"}  # at the beginning of a row they would belong to the line end before
)


def write_table(folder: Path, grid: Grid, results: Results, found: Mapping[str, Sequence[str]]) -> None:
    """Write `FILES`.

    Args:
        folder: where they go.
        grid: the study.
        results: those of its runs.
        found: the confounds of each factor.
    """
    texts = (markdown(grid, results, found), single_values(grid, results), latex(grid, results, found))
    for name, text in zip(FILES, texts, strict=True):
        write_atomically(folder / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]


def markdown(grid: Grid, results: Results, found: Mapping[str, Sequence[str]]) -> str:
    """All of it for people."""
    study = grid.study
    lines = [f"# {study.question}", "", *about(grid, results, found)]
    for measure, better in study.measures.items():
        rows = rows_of(results, measure)
        head = [*study.arms, "mean", "deviation", INTERVAL, "seeds"]
        cells = [[*row.arms.values(), *described(row.estimate), str(row.estimate.number)] for row in rows]
        lines += ["", f"## {results.names[measure]} ({'higher' if better == 'up' else 'lower'} is better)", ""]
        lines += [*grid_of(head, cells), "", "Differences, paired by the seed:", ""]
        head = ["factor", "with", "difference", "mean", INTERVAL, "seeds", "reading"]
        doubtful = [
            factor
            for factor, texts in unacknowledged(study, found).items()
            if any(concerns(text, study, measure) for text in texts)
        ]
        lines += grid_of(head, [difference_row(each, better, doubtful) for each in differences_of(rows, study.arms)])
    return "\n".join(lines) + "\n"


def about(grid: Grid, results: Results, found: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What is to be known beside the values, as a list."""
    study = grid.study
    budgets = {(cell.cfg.trainer.max_steps, cell.cfg.batch_size) for cell in grid.trained}
    for steps, batch in sorted(budgets):
        yield f"- Budget of {'each run' if len(budgets) == 1 else 'some runs'}: {steps:,} steps of {batch:,} images."
    yield f"- Seeds: {', '.join(map(str, study.seeds))}. Intervals: {PERCENT}, Student's t over the seeds,"
    yield "  not corrected for their number: of twenty differences that are none, one is expected to be detected."
    if study.extra:
        yield f"- With {' '.join(study.extra)}"
    versions = sorted({"not noted" if not result.code else " and ".join(result.code) for result in results.found})
    mixed = " **The runs are of different code.**" if len(versions) > 1 else ""
    yield f"- Code: {'; '.join(versions)}.{mixed}"
    for factor, texts in found.items():
        for text in texts:
            if is_known(text, study):
                yield f"- {factor} comes with {text} (acknowledged)."
            else:
                yield f"- **Confounded**: {factor}: {text}."
    if results.missing:
        yield f"- **Missing: {len(results.missing)}.**"
        yield from (f"  - {line}" for line in results.missing)


def difference_row(difference: Difference, better: str, doubtful: Collection[str]) -> list[str]:
    """A difference and its verdict; `doubtful` are the factors that are confounded."""
    first, second, estimate = difference.first, difference.second, difference.estimate
    reading = verdict(estimate, first, second, better) + (" (confounded)" if difference.factor in doubtful else "")
    context = ", ".join(difference.context.values()) or "their mean"
    mean, _, interval = described(estimate, sign="+")
    return [difference.factor, context, f"{second} - {first}", mean, interval, str(estimate.number), reading]


def described(estimate: Estimate, sign: str = "") -> list[str]:
    """Its mean, deviation and interval."""
    interval = estimate.why_none
    if estimate.low is not None and estimate.high is not None:
        interval = f"{estimate.low:{sign}.4g} to {estimate.high:{sign}.4g}"
    deviation = "" if estimate.deviation is None else f"{estimate.deviation:.2g}"
    return [f"{estimate.mean:{sign}.4g}", deviation, interval]


def grid_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table of Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def single_values(grid: Grid, results: Results) -> str:
    """Every value of every run, from which everything else can be recomputed; CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(results.names.values())
    writer.writerow([*grid.study.arms, "seed", *names, "protocol", "code", "folder"])
    for result in results.found:
        values = [repr(result.values[name]) for name in names]
        code, place = " and ".join(result.code), result.place.relative_to(grid.output_dir)
        writer.writerow([*result.arms.values(), result.seed, *values, result.protocol, code, place])
    return text.getvalue()


def latex(grid: Grid, results: Results, found: Mapping[str, Sequence[str]]) -> str:
    """The means with their intervals as a `tabular`, which needs no package."""
    study = grid.study
    measures = {measure: rows_of(results, measure) for measure in study.measures}
    comments = [study.question, *(line.replace("**", "") for line in about(grid, results, found))]
    lines = [f"% {line}" for comment in comments for line in comment.splitlines()]
    lines += [rf"\begin{{tabular}}{{{'l' * len(study.arms)}{'r' * len(measures)}}}", r"\hline"]
    heads = [rf"{escaped(results.names[measure])} $\{better}arrow$" for measure, better in study.measures.items()]
    lines += [" & ".join([*map(escaped, study.arms), *heads]) + r" \\", r"\hline"]
    for same in zip(*measures.values(), strict=True):
        cells = [*map(escaped, same[0].arms.values()), *(half_width(row) for row in same)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def half_width(row: Row) -> str:
    """A mean, and how far its interval reaches on both sides."""
    estimate = row.estimate
    if estimate.high is None:
        return f"${estimate.mean:.4g}$"
    return rf"${estimate.mean:.4g} \pm {estimate.high - estimate.mean:.2g}$"


def escaped(text: str) -> str:
    """A text as LaTeX takes it, on one line."""
    return visible(text).translate(ESCAPES)
