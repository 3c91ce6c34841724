"""Takes times by turns, so that whatever else the machine does disturbs all alike, and compares within a turn."""

import time
from collections.abc import Callable, Mapping, Sequence
from resource import RUSAGE_CHILDREN, getrusage
from typing import NamedTuple

import numpy as np
import torch


class Turn(NamedTuple):
    """What one of those compared does in a round: `act`, so many times."""

    act: Callable[[], object]
    times: int = 1


class Seconds(NamedTuple):
    """How long something takes.

    Attributes:
        wall: on the clock.
        cpu: of all CPU threads of this process and of those that it waited for: nearly the same whatever else the
            machine does.
    """

    wall: float
    cpu: float

    def since(self, began: "Seconds", times: int) -> "Seconds":
        """From `began` to here, for each of so many times."""
        return Seconds((self.wall - began.wall) / times, (self.cpu - began.cpu) / times)


class Clock:
    """Reads the time when the device has done what it was given.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str) -> None:
        self.device = device

    def __call__(self) -> Seconds:
        """From an arbitrary beginning."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        children = getrusage(RUSAGE_CHILDREN)
        return Seconds(time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime)

    def time(self, turn: Turn) -> Seconds:
        """How long one `act` of a turn takes."""
        began = self()
        for _ in range(turn.times):
            turn.act()
        return self().since(began, turn.times)


class Times:
    """How long each took, round by round.

    Attributes:
        wall: seconds on the clock, by name.
        cpu: seconds of CPU, by name.
    """

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}

    def add(self, found: Mapping[str, Seconds]) -> None:
        """Add a round."""
        for name, seconds in found.items():
            self.wall.setdefault(name, []).append(seconds.wall)
            self.cpu.setdefault(name, []).append(seconds.cpu)

    def without(self, rounds: int) -> "Times":
        """All but the first rounds, the warm-up."""
        rest = Times()
        for own, kept in ((self.wall, rest.wall), (self.cpu, rest.cpu)):
            kept |= {name: values[rounds:] for name, values in own.items()}
        return rest


def one_round(turns: Mapping[str, Turn], number: int, clock: Clock) -> dict[str, Seconds]:
    """Everyone's turn once; round by round another one is the first."""
    first = number % max(1, len(turns))
    names = [*list(turns)[first:], *list(turns)[:first]]
    return {name: clock.time(turns[name]) for name in names}


def take_turns(turns: Mapping[str, Turn], warm_up: int, rounds: int, clock: Clock) -> Times:
    """The times of so many rounds after a warm-up."""
    times = Times()
    for number in range(warm_up + rounds):
        times.add(one_round(turns, number, clock))
    return times.without(warm_up)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and range."""
    names = ("min", "lower_quartile", "median", "upper_quartile", "max")
    return dict(zip(names, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist(), strict=True))


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """The spread of the ratios within each round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])
