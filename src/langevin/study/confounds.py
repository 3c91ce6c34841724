"""Whether a factor varies what it names and nothing else."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from langevin.config.types import TARGET
from langevin.config.validate import BUNDLES, Mistake
from langevin.study.cells import Cell, Grid
from langevin.study.plan import Factors, Study, keys_of

BUDGET = ("trainer.max_steps",)
"""What does not affect training up to a step, but affects the result of a run."""
OF_LOSS = ("schedule", "rescalings", "parameterization", "variance", "objective", "weighting", "time_sampler")
"""The groups that decide what a loss is the mean of."""
ABSENT = object()


def varied(grid: Grid) -> dict[str, list[str]]:
    """Of each factor the fields in which its arms differ, all else being equal; of other components, the component."""
    found = {factor: fields_of(grid.trained, factor) for factor in grid.study.factors}
    return found | {factor: fields_of(grid.evaluated, factor) for factor in grid.study.evaluate_factors}


def confounds(grid: Grid) -> dict[str, list[str]]:
    """Of each factor what varies with it that not all of its arms name, in words.

    An arm without overrides is the base, and names what the others do. A bundle (`formulation=...`) names nothing, but
    where its arms differ in a single component that is what they are about.
    """
    study, fields = grid.study, varied(grid)
    found: dict[str, list[str]] = {}
    for factors, cells in ((study.factors, grid.trained), (study.evaluate_factors, grid.evaluated)):
        for factor in factors:
            if not any(len(group) > 1 for group in contexts(cells, factor)):
                found[factor] = [f"no two cells differ in {factor} alone"]
            elif more := unnamed(factors, factor, fields[factor]):
                found[factor] = more
    for factor in study.factors:
        if (losses := [name for name in study.measures if name.endswith("/loss")]) and (
            groups := sorted({field.partition(".")[0] for field in fields[factor]}.intersection(OF_LOSS))
        ):
            texts = [f"{name}, which is another quantity for another {' or '.join(groups)}" for name in losses]
            found.setdefault(factor, []).extend(texts)
    return found


def unacknowledged(study: Study, found: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The confounds that the study does not acknowledge."""
    left = {factor: [text for text in texts if not is_known(text, study)] for factor, texts in found.items()}
    return {factor: texts for factor, texts in left.items() if texts}


def overacknowledged(study: Study, found: Mapping[str, Sequence[str]]) -> list[Mistake]:
    """What a study acknowledges although it is not a confound."""
    fields = [text.partition(",")[0] for texts in found.values() for text in texts]
    return [
        Mistake("confounds_acknowledged", f"{known!r} does not vary; allowed: {', '.join(fields) or 'nothing'}")
        for known in study.acknowledged
        if not any(covered(field, [known]) for field in fields)
    ]


def is_known(text: str, study: Study) -> bool:
    """Whether the study acknowledges a confound."""
    return covered(text.partition(",")[0], study.acknowledged)


def concerns(text: str, study: Study, measure: str) -> bool:
    """Whether a confound concerns a measure: one of a loss concerns that alone."""
    about = text.partition(",")[0]
    return about == measure or about not in study.measures


def fields_of(cells: Sequence[Cell], factor: str) -> list[str]:
    """The fields in which cells differ that differ in nothing but the arm of a factor."""
    found: set[str] = set()
    for group in contexts(cells, factor):
        found.update(differing([compared(cell) for cell in group]))
    return sorted(found)


def contexts(cells: Sequence[Cell], factor: str) -> Iterator[list[Cell]]:
    """The cells that have all arms in common but a factor's."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(arm for name, arm in cell.arms.items() if name != factor), []).append(cell)
    yield from groups.values()


def compared(cell: Cell) -> dict[str, Any]:
    """What of a cell's config must be equal, but for what is varied."""
    trainer = cell.cfg.get("trainer") or {}
    return {**cell.decides, **cell.paths, **{path: trainer[path.partition(".")[2]] for path in BUDGET if trainer}}


def differing(configs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The paths at which flat configs differ; where the kind of a component does, the component's."""
    paths = {path for config in configs for path in config}
    unequal = {p for p in paths if any(c.get(p, ABSENT) != configs[0].get(p, ABSENT) for c in configs)}
    for path in unequal:
        parts = path.split(".")
        outer = (".".join(parts[:end]) for end in range(1, len(parts)))
        yield next((component for component in outer if f"{component}.{TARGET}" in unequal), path)


def unnamed(factors: Factors, factor: str, fields: Sequence[str]) -> list[str]:
    """Those fields in which a factor's arms differ that not all of them name."""
    arms = [keys_of(overrides) for overrides in factors[factor].values() if overrides]
    named = [[key for key in keys if key not in BUNDLES] for keys in arms]
    if not any(named) and len({field.partition(".")[0] for field in fields}) == 1:
        return []
    return [field for field in fields if not all(covered(field, keys) for keys in named)]


def covered(field: str, keys: Collection[str]) -> bool:
    """Whether a field is one of these, or a part of one."""
    return any(field == key or field.startswith(f"{key}.") for key in keys)
