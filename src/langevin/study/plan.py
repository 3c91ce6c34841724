"""What a study asks: its `study.yaml`, read and checked."""

import ast
import itertools
import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from langevin.config.types import describe, fits
from langevin.config.validate import Mistake, unknown
from langevin.errors import UserError

FILE = "study.yaml"
ARMS = "Mapping[str, Mapping[str, str | list[str]]]"
KEYS = {
    "question": "str",
    "base": "str | list[str]",
    "factors": ARMS,
    "evaluate": "Mapping",
    "cells": "list[str]",
    "seeds": "list[Annotated[int, Ge(0)]]",
    "measures": "Mapping[str, Literal['up', 'down']]",
    "confounds_acknowledged": "list[str]",
    "search": "Mapping",
}
EVALUATE_KEYS = {"base": "str | list[str]", "factors": ARMS}
REQUIRED = ("question", "seeds", "measures")
SET_BY_STUDY = {
    "train": ("name", "seed", "resume"),
    "evaluate": ("checkpoint", "samples", "export", "compare", "out", "output_dir"),
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Factors = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Of each factor its arms, and of each arm its overrides."""


@dataclass(frozen=True)
class Study:
    """A question and the grid of runs that answers it.

    Attributes:
        folder: where its `study.yaml` lies, and where its table goes.
        question: in words.
        base: overrides of `train.py` that all runs share.
        extra: more of them, from the command line.
        factors: what is varied in training.
        evaluate_base: overrides of `evaluate.py` that all evaluations share.
        evaluate_factors: what is varied in evaluating each trained run; where there is neither this nor a base, what
            runs measure in training is read.
        cells: the names of the combinations of arms that are trained; None for all.
        seeds: of training; each combination is trained with each.
        measures: what is read of each run, a name or a pattern such as "eval/fd_*@500", with "up" or "down": which way
            is better.
        acknowledged: fields that are known to differ along with a factor.
    """

    folder: Path
    question: str
    base: tuple[str, ...]
    extra: tuple[str, ...]
    factors: Factors
    evaluate_base: tuple[str, ...]
    evaluate_factors: Factors
    cells: tuple[str, ...] | None
    seeds: tuple[int, ...]
    measures: Mapping[str, str]
    acknowledged: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's own."""
        return self.folder.resolve().name

    @property
    def evaluates(self) -> bool:
        """Whether trained runs are evaluated separately, by `evaluate.py`."""
        return bool(self.evaluate_base or self.evaluate_factors)

    @property
    def arms(self) -> dict[str, tuple[str, ...]]:
        """Of every factor, of training and of evaluating, the names of its arms."""
        return {factor: tuple(arms) for factor, arms in {**self.factors, **self.evaluate_factors}.items()}


class StudyError(UserError):
    """All the mistakes in a study, a line each."""

    def __init__(self, study: Path, mistakes: Sequence[Mistake]) -> None:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"{study}: {count}:\n" + "\n".join(f"  {path}: {text}" for path, text in mistakes))


class Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping of its keys, which are distinguished by how they are written.

        Raises:
            ConstructorError: when two are the same.
        """
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_study(place: Path, extra: Sequence[str] = ()) -> Study:
    """Read a study.

    Args:
        place: its folder, or the file itself.
        extra: overrides of `train.py` from the command line, which beat the study's base.

    Raises:
        UserError: when there is none, or with all the mistakes in it.
    """
    file, values = load_file(place)
    if mistakes := [*misshapen(values, KEYS, "", REQUIRED)]:
        raise StudyError(file, mistakes)
    evaluate = values.get("evaluate") or {}
    if mistakes := [*misshapen(evaluate, EVALUATE_KEYS, "evaluate.")]:
        raise StudyError(file, mistakes)
    study = Study(
        folder=file.parent,
        question=" ".join(values["question"].split()),
        base=listed(values.get("base", ())),
        extra=tuple(extra),
        factors=arms_of(values),
        evaluate_base=listed(evaluate.get("base", ())),
        evaluate_factors=arms_of(evaluate),
        cells=None if "cells" not in values else tuple(values["cells"]),
        seeds=tuple(values["seeds"]),
        measures=values["measures"],
        acknowledged=tuple(values.get("confounds_acknowledged", ())),
    )
    if mistakes := [*mistaken(study)]:
        raise StudyError(file, mistakes)
    return study


def load_file(place: Path) -> tuple[Path, Mapping[Any, Any]]:
    """The `study.yaml` in a folder, or the file itself, and what it holds, unchecked.

    Raises:
        UserError: when there is none, or it is no mapping.
    """
    file = place / FILE if place.is_dir() else place
    try:
        values = yaml.load(file.read_text(), Loader)
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist; give a folder with a {FILE}, such as experiments/schedules") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping):
        raise UserError(f"{file}: must hold {', '.join(f'{key}:' for key in KEYS)} and holds none of them")
    return file, values


def misshapen(
    values: Mapping[Any, Any], keys: Mapping[str, str], place: str, required: Sequence[str] = ()
) -> Iterator[Mistake]:
    """The keys that are missing or unknown, and the values of a wrong type."""
    for key in required:
        if values.get(key) in (None, "", [], {}):
            yield Mistake(f"{place}{key}", f"must be given: {describe(annotation(keys[key]))}")
    for key, value in values.items():
        if key not in keys:
            yield Mistake(f"{place}{key}", unknown(str(key), list(keys)))
        elif key not in required or value not in (None, "", [], {}):
            yield from misfits(f"{place}{key}", value, annotation(keys[key]))


def annotation(text: str) -> ast.expr:
    """A type as `langevin.config.types` takes it."""
    return ast.parse(text, mode="eval").body


def misfits(path: str, value: Any, kind: ast.expr) -> Iterator[Mistake]:
    """Where a value does not fit, as deep in it as can be determined."""
    match kind:
        case ast.Subscript(value=ast.Name(id="Mapping"), slice=ast.Tuple(elts=[_, inner])) if isinstance(
            value, Mapping
        ):
            for key, each in value.items():
                if isinstance(key, bool):
                    yield Mistake(path, f"has the key {key}, as YAML reads yes, no, on and off; put it into quotes")
                else:
                    yield from misfits(f"{path}.{key}", each, inner)
        case _ if not fits(value, kind):
            yield Mistake(path, f"is {value!r}; allowed: {describe(kind)}")


def listed(overrides: str | Sequence[str]) -> tuple[str, ...]:
    """One override or several."""
    return (overrides,) if isinstance(overrides, str) else tuple(overrides)


def arms_of(values: Mapping[str, Any]) -> dict[str, dict[str, tuple[str, ...]]]:
    """The factors of a part of the file."""
    factors = values.get("factors") or {}
    return {
        str(factor): {str(arm): listed(overrides) for arm, overrides in arms.items()}
        for factor, arms in factors.items()
    }


def key_of(override: str) -> str:
    """The group or the field that an override is about: "schedule" of "schedule=cosine".

    Raises:
        ValueError: when it is no override, or goes over several values.
    """
    try:
        (parsed,) = OverridesParser.create().parse_overrides([override])
    except HydraException as error:
        raise ValueError("is no override; allowed: KEY=VALUE, such as schedule=cosine") from error
    if parsed.is_sweep_override():
        raise ValueError("has several values; give each an arm of its own, or write a list in brackets")
    return str(parsed.key_or_group)


def combinations(factors: Factors) -> dict[str, dict[str, str]]:
    """All combinations of arms, the arm of each factor, by their names, such as "cosine-small"."""
    combined = (dict(zip(factors, arms, strict=True)) for arms in itertools.product(*factors.values()))
    return {"-".join(arms.values()): arms for arms in combined}


def mistaken(study: Study) -> Iterator[Mistake]:
    """What is wrong with a study whose types are right."""
    yield from misgiven("base", "train", study.base)
    yield from misgiven("command line", "train", study.extra)
    yield from misgiven("evaluate.base", "evaluate", study.evaluate_base)
    if not study.factors and not study.evaluate_factors:
        yield Mistake("factors", "must be given, here or in evaluate: at least one factor with its arms")
    for factor in sorted(study.factors.keys() & study.evaluate_factors.keys()):
        yield Mistake(f"evaluate.factors.{factor}", "is the name of a factor of training too; choose another")
    yield from misvaried("factors", "train", study.factors, study.extra)
    yield from misvaried("evaluate.factors", "evaluate", study.evaluate_factors)
    known = combinations(study.factors)
    if study.cells == ():
        yield Mistake("cells", f"is []; allowed: some of {', '.join(known)}, or leave it out for all")
    for cell in study.cells or ():
        if cell not in known:
            yield Mistake("cells", f"{cell!r} is not a combination of arms; allowed: {', '.join(known)}")
    if len(set(study.seeds)) < len(study.seeds):
        yield Mistake("seeds", f"is {list(study.seeds)}; allowed: each seed once")
    in_training = "a column of metrics.csv, eval/..., val/... or train/...; or give evaluate"
    allowed = "a name in metrics.json, such as fid@5000, for the study has evaluate" if study.evaluates else in_training
    for measure in study.measures:
        if study.evaluates == measure.startswith(("train/", "val/", "eval/")):
            yield Mistake(f"measures.{measure}", f"allowed: {allowed}")


def misvaried(place: str, command: str, factors: Factors, fixed: Sequence[str] = ()) -> Iterator[Mistake]:
    """What is wrong with the factors of a command, of whose overrides those in `fixed` beat all others."""
    owners = dict.fromkeys(keys_of(fixed), "the command line")
    for factor, arms in factors.items():
        if len(arms) < 2:
            yield Mistake(f"{place}.{factor}", f"has {len(arms)} arms; allowed: two or more")
        for name in (factor, *arms):
            if not NAME.fullmatch(name):
                yield Mistake(f"{place}.{factor}", f"{name!r} is not a valid name; allowed: letters, digits and _ . -")
        for arm, overrides in arms.items():
            yield from misgiven(f"{place}.{factor}.{arm}", command, overrides)
            for key in keys_of(overrides):
                if owners.setdefault(key, f"the factor {factor}") != f"the factor {factor}":
                    yield Mistake(f"{place}.{factor}.{arm}", f"sets {key}, as does {owners[key]}; allowed: one of them")
    if len(combinations(factors)) < math.prod(map(len, factors.values())):
        yield Mistake(place, "two combinations of arms have the same name; choose names without -")


def misgiven(place: str, command: str, overrides: Sequence[str]) -> Iterator[Mistake]:
    """The texts that are not overrides, or that a study may not set."""
    for text in overrides:
        try:
            key = key_of(text)
        except ValueError as error:
            yield Mistake(place, f"{text!r} {error}")
            continue
        if key in SET_BY_STUDY[command]:
            yield Mistake(place, f"{text!r}: {key} is set by the study; leave it out")
        elif key == "debug":
            yield Mistake(place, f"{text!r}: a debug run is none of a study; try one cell of it by langevin train")
        elif key.startswith("hydra"):
            yield Mistake(place, f"{text!r}: Hydra's own settings are given on the command line, after --")


def keys_of(overrides: Sequence[str]) -> Iterator[str]:
    """The keys of those overrides that are well-formed."""
    for text in overrides:
        with suppress(ValueError):
            yield key_of(text)
