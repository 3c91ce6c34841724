"""What a search goes over and towards: the section `search` of a `study.yaml`, read and checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langevin.config.validate import Mistake
from langevin.errors import UserError
from langevin.study.plan import StudyError, key_of, listed, load_file, misgiven, misshapen

KEYS = {
    "space": "Mapping[str, Any]",
    "value": "str",
    "direction": "Literal['minimize', 'maximize']",
    "trials": "Annotated[int, Ge(1)]",
    "seed": "Annotated[int, Ge(0)]",
}
REQUIRED = ("space", "value", "trials")
RANGE = ("low", "high", "log", "step")
Choice = str | int | float | bool | None


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low: the least; whole numbers are searched where both ends are.
        high: the greatest.
        log: whether the logarithm is searched evenly.
        step: between whole numbers; 1 where `log` is true.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether it is of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Space = Mapping[str, Range | tuple[Choice, ...]]


@dataclass(frozen=True)
class Search:
    """A search for the best options.

    Attributes:
        folder: where its `study.yaml` lies, and where its table goes.
        overrides: of `train.py`, that all trials share.
        space: what each option may be.
        value: what is optimized: the name of a logged value, or a pattern of one; each run's last.
        maximize: whether a higher value is better.
        trials: how many runs.
        seed: of the search, and of each run.
    """

    folder: Path
    overrides: tuple[str, ...]
    space: Space
    value: str
    maximize: bool
    trials: int
    seed: int

    @property
    def name(self) -> str:
        """The folder's own."""
        return self.folder.resolve().name


def read_search(place: Path, extra: tuple[str, ...] = ()) -> Search:
    """Read the search of a study.

    Args:
        place: the study's folder, or the file itself.
        extra: overrides of `train.py` from the command line, which beat the study's base.

    Raises:
        UserError: when there is none, or with all the mistakes in it.
    """
    file, values = load_file(place)
    section = values.get("search")
    if not isinstance(section, Mapping):
        raise UserError(f"{file}: has no section search, which gives {', '.join(KEYS)}")
    base = values.get("base", ())
    if mistakes := [*misshapen({"base": base}, {"base": "str | list[str]"}, "")] if base else []:
        raise StudyError(file, mistakes)
    mistakes = [*misshapen(section, KEYS, "search.", REQUIRED)]
    mistakes += [*misgiven("base", "train", listed(base)), *misgiven("command line", "train", extra)]
    if not mistakes:
        mistakes = [each for option, given in section["space"].items() for each in mistaken(str(option), given)]
    if mistakes:
        raise StudyError(file, mistakes)
    return Search(
        folder=file.parent,
        overrides=(*listed(base), *extra),
        space={str(option): domain(given) for option, given in section["space"].items()},
        value=section["value"],
        maximize=section.get("direction", "minimize") == "maximize",
        trials=section["trials"],
        seed=section.get("seed", 0),
    )


def number(value: Any) -> int | float | None:
    """A number, also one that YAML reads as a text, such as 1e-4; None for anything else."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def domain(given: Any) -> Range | tuple[Choice, ...]:
    """What an option may be, of sound values."""
    if isinstance(given, Mapping):
        low, high = number(given["low"]), number(given["high"])
        assert low is not None
        assert high is not None
        return Range(low, high, given.get("log", False), given.get("step", 1))
    return tuple(given)


def mistaken(option: str, given: Any) -> Iterator[Mistake]:
    """What is wrong with an option of the space."""
    place = f"search.space.{option}"
    try:
        key_of(f"{option}=0")
    except ValueError:
        yield Mistake(place, "is no option; allowed: one of train.py, such as optimizer.lr")
        return
    yield from misgiven(place, "train", (f"{option}=0",))
    if isinstance(given, Mapping):
        if not {"low", "high"} <= given.keys() <= set(RANGE):
            yield Mistake(place, f"has {', '.join(map(str, given))}; allowed: low and high, and log or step")
            return
        low, high = number(given["low"]), number(given["high"])
        log, step = given.get("log", False), given.get("step", 1)
        if low is None or high is None or not low < high:
            yield Mistake(place, f"goes from {given['low']} to {given['high']}; allowed: numbers, low below high")
        elif not isinstance(log, bool) or (log and low <= 0):
            yield Mistake(place, f"has low {low:g} and log {log}; allowed: log true where low is above 0, or false")
        elif type(step) is not int or step < 1 or (step > 1 and (log or not Range(low, high).is_whole)):
            yield Mistake(place, f"has step {step}; allowed: at least 1, between whole numbers, without log")
    elif not isinstance(given, list) or len(given) < 2 or not all(isinstance(each, Choice) for each in given):
        yield Mistake(place, f"is {given!r}; allowed: low, high, log and step, or a list of two choices or more")
    elif len({repr(each) for each in given}) < len(given):
        yield Mistake(place, f"is {given!r}; allowed: each choice once")
