"""Random numbers that belong to the samples of a batch, not to the batch."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Generator, Tensor

GAMMA = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio, to the nearest odd number."""


CONDITIONING = 2**62
"""Added to the seed of samples for the random numbers by which columns of their conditions are computed."""


class Draws(ABC):
    """Gives the samples of a batch their random numbers, others at every call.

    Attributes:
        shape: the shape of a sample x, such as (C, H, W).
    """

    shape: tuple[int, ...]

    @abstractmethod
    def normal(self, shape: Sequence[int] | None = None) -> Tensor:
        """Standard normal noise of the shape of the samples, or of another one: float32 (B, *shape)."""

    @abstractmethod
    def uniform(self) -> Tensor:
        """A uniform number in [0, 1) for each sample: float32 (B,)."""


class SampleDraws(Draws):
    """Random numbers in which those of sample i depend on (seed, i) alone: for sampling and for likelihoods.

    Each sample has its own generator on the CPU, so that neither the batch size nor the number of processes nor the
    kind of device changes what a sample becomes.

    Args:
        seed: at least 0 and below 2^64, as is every index.
        indices: the sample of each row.
        shape: the shape of a sample.
        device: where the numbers go.
    """

    def __init__(
        self, seed: int, indices: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        # Philox is keyed by both numbers, so that no two (seed, index) share a stream; torch's own CPU generator would
        # look at the low 32 bits of a seed alone.
        keys = [np.array([seed, index], np.uint64) for index in indices]
        self._generators = [np.random.Generator(np.random.Philox(key=key)) for key in keys]
        self._device = device
        self.shape = tuple(shape)

    def normal(self, shape: Sequence[int] | None = None) -> Tensor:
        """See `Draws`."""
        shape = self.shape if shape is None else shape
        rows = [generator.standard_normal(shape, dtype=np.float32) for generator in self._generators]
        return torch.from_numpy(np.stack(rows)).to(self._device, non_blocking=True)

    def uniform(self) -> Tensor:
        """See `Draws`."""
        rows = np.array([generator.random(dtype=np.float32) for generator in self._generators], np.float32)
        return torch.from_numpy(rows).to(self._device, non_blocking=True)


def conditioning_draws(
    seed: int, indices: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
) -> SampleDraws:
    """The random numbers of samples for their conditions, in a stream of its own; see `SampleDraws`.

    What is drawn for a condition then leaves the noise of a sample as it is.
    """
    return SampleDraws((seed + CONDITIONING) % 2**64, indices, shape, device)


class BatchDraws(Draws):
    """The random numbers of a training batch that is spread over processes.

    Those of a sample are a pure function of the batch's seed, the sample's place in the whole batch, and how much was
    drawn for it before. A process computes those of its own samples alone, and a sample gets the same ones under any
    number of processes; on a GPU they differ from the CPU's by rounding.

    Args:
        seed: the batch's, in [0, 2^63).
        x: this process's samples (B, *shape): every `step`-th of the batch, from the one at `first` on.
        total: how many samples the batch has.
        first: this process's number.
        step: how many processes there are.
        gather: gives the numbers (step, B) of all processes from those (B,) of this one.

    Attributes:
        total: as above.
        drawn: what the objective has drawn for this process's samples, by name: to be recorded, each with B rows.
    """

    VERSION = 2
    """Of the numbers, for checkpoints: a run that resumes under another one continues with other numbers."""

    def __init__(
        self,
        seed: int,
        x: Tensor,
        total: int,
        first: int = 0,
        step: int = 1,
        gather: Callable[[Tensor], Tensor] = lambda own: own,
    ) -> None:
        self.shape = tuple(x.shape[1:])
        self.total = total
        self.drawn: dict[str, Tensor] = {}
        self._seed = seed
        self._own = slice(first, first + step * len(x), step)
        self._device = x.device
        self._used = 0  # words of each sample so far
        self._gather = gather

    @functools.cached_property
    def shared(self) -> Generator:
        """A stream on the CPU, for one number a sample of the whole batch, such as times: all processes draw alike."""
        return Generator().manual_seed(self._seed)

    @functools.cached_property
    def _states(self) -> Tensor:
        """Where the words of each sample begin, int64 (B, 1); computed for what draws, which not every codec does."""
        places = torch.arange(self._own.start, self._own.stop, self._own.step, device=self._device)
        return places.mul_(signed(GAMMA * GAMMA)).add_(self._seed)[:, None]

    def mine(self, values: Tensor) -> Tensor:
        """The part (B, ...) of values of all samples (total, ...) that belongs to this process's."""
        return values[self._own]

    def gather(self, values: Tensor) -> Tensor:
        """The values (total,) of all samples from those (B,) of this process's; every process must call it."""
        return self._gather(values).reshape(-1, len(values)).T.flatten()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes of values of any shape; every process must call it."""
        return self._gather(values).reshape(-1, *values.shape).mean(0)

    def normal(self, shape: Sequence[int] | None = None) -> Tensor:
        """See `Draws`; channels last in memory, as images are. None is beyond 6.8. Source: Box and Muller 1958."""
        channels, *size = self.shape if shape is None else shape
        number = channels * math.prod(size)
        words = self._words(-(-number // 2))
        # Half a word is a radius and half an angle, of a pair. Small numbers, which make large radii, are not rounded.
        u = (words >> 32).bitwise_and_(2**32 - 1).float().add_(0.5).mul_(2**-32)
        angle = words.bitwise_and_(2**32 - 1).float().mul_(math.tau * 2**-32)
        pairs = torch.view_as_real(torch.polar(u.log_().mul_(-2).sqrt_(), angle))
        return pairs.flatten(1)[:, :number].reshape(len(words), *size, channels).movedim(-1, 1)

    def uniform(self) -> Tensor:
        """See `Draws`: multiples of 2^-24."""
        return (self._words(1)[:, 0] >> 40).bitwise_and_(2**24 - 1).float().mul_(2**-24)

    def _words(self, number: int) -> Tensor:
        """The next words of 64 random bits of each sample: int64 (B, number).

        They are those of SplitMix64 (Steele, Lea and Flood 2014), which passes BigCrush: its n-th word is a hash of
        ``seed + n GAMMA``. The sample at place p begins at ``n = p GAMMA``, by the golden ratio: so N samples begin
        more than ``2^62 / N`` words apart, and none meets another's.
        """
        # Philox-4x32-10 takes some hundred tensor operations where these are 14; for vectors of two numbers each
        # operation costs as much as the next, whatever it computes, and a step of an MLP has a few hundred of them.
        steps = torch.arange(self._used + 1, self._used + 1 + number, device=self._device)
        self._used += number
        words = self._states + steps.mul_(signed(GAMMA))
        words = xorshift(words, 30).mul_(signed(0xBF58476D1CE4E5B9))
        words = xorshift(words, 27).mul_(signed(0x94D049BB133111EB))
        return xorshift(words, 31)


def signed(word: int) -> int:
    """The lowest 64 bits of a number as torch's int64, whose sums and products wrap around."""
    return (word + 2**63) % 2**64 - 2**63


def xorshift(words: Tensor, shift: int) -> Tensor:
    """``words ^ (words >> shift)`` in place, of int64 as if they had no sign."""
    return words.bitwise_xor_((words >> shift).bitwise_and_(2 ** (64 - shift) - 1))
