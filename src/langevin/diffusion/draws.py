"""Random numbers that belong to the samples of a batch, not to the batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Generator, Tensor


class Draws(ABC):
    """Gives the samples of a batch their random numbers, others at every call.

    Attributes:
        shape: the shape of a sample x, such as (C, H, W).
    """

    shape: tuple[int, ...]

    @abstractmethod
    def normal(self) -> Tensor:
        """Standard normal noise of the shape of the samples: float32 (B, *shape)."""

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

    def normal(self) -> Tensor:
        """See `Draws`."""
        rows = [generator.standard_normal(self.shape, dtype=np.float32) for generator in self._generators]
        return torch.from_numpy(np.stack(rows)).to(self._device, non_blocking=True)

    def uniform(self) -> Tensor:
        """See `Draws`."""
        rows = np.array([generator.random(dtype=np.float32) for generator in self._generators], np.float32)
        return torch.from_numpy(rows).to(self._device, non_blocking=True)


class Streams:
    """The random streams of a seed, one on each kind of device, which all processes draw alike.

    Args:
        seed: at least 0.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generators: dict[torch.device, Generator] = {}

    def on(self, device: torch.device) -> Generator:
        """The stream on a device."""
        if device not in self._generators:
            self._generators[device] = Generator(device).manual_seed(self._seed)
        return self._generators[device]


class BatchDraws(Draws):
    """The random numbers of a training batch that is spread over processes.

    Every process draws those of all samples and takes its own: a sample gets the same ones under any number of
    processes.

    Args:
        streams: what is drawn from; a further batch continues them.
        x: this process's samples (B, *shape): every `step`-th of the batch, from the one at `first` on.
        total: how many samples the batch has.
        first: this process's number.
        step: how many processes there are.
        gather: gives the numbers (step, B) of all processes from those (B,) of this one.

    Attributes:
        total: as above.
        drawn: what the objective has drawn for this process's samples, by name: to be recorded, each with B rows.
    """

    def __init__(
        self,
        streams: Streams,
        x: Tensor,
        total: int,
        first: int = 0,
        step: int = 1,
        gather: Callable[[Tensor], Tensor] = lambda own: own,
    ) -> None:
        self.shape = tuple(x.shape[1:])
        self.total = total
        self.drawn: dict[str, Tensor] = {}
        self._streams = streams
        self._rows, self._device = len(x), x.device
        self._first, self._step = first, step
        self._gather = gather

    @property
    def shared(self) -> Generator:
        """The stream on the CPU, for numbers of the whole batch, such as its times; all processes draw alike."""
        return self._streams.on(torch.device("cpu"))

    def mine(self, values: Tensor) -> Tensor:
        """The part (B, ...) of values of all samples (total, ...) that belongs to this process's."""
        return values[self._first :: self._step][: self._rows]

    def gather(self, values: Tensor) -> Tensor:
        """The values (total,) of all samples from those (B,) of this process's; every process must call it."""
        return self._gather(values).reshape(-1, self._rows).T.flatten()

    def normal(self) -> Tensor:
        """See `Draws`; channels last in memory, as images are."""
        channels, *size = self.shape
        stream = self._streams.on(self._device)
        noise = torch.randn(self.total, *size, channels, device=self._device, generator=stream)
        return self.mine(noise).movedim(-1, 1)

    def uniform(self) -> Tensor:
        """See `Draws`."""
        return self.mine(torch.rand(self.total, device=self._device, generator=self._streams.on(self._device)))
