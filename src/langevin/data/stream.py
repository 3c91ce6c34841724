"""The order of images: a pure function of the seed and the position, for any number of processes."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray


class Positions(NamedTuple):
    """Some places of the stream.

    Attributes:
        indices: (B,) int64, which images stand there.
        flips: (B,) bool, whether each is mirrored.
        uniform: (B,) float64 in [0, 1), by which one of several captions is chosen; 0 where none is to be.
    """

    indices: NDArray[np.int64]
    flips: NDArray[np.bool_]
    uniform: NDArray[np.float64]

    @classmethod
    def plain(cls, indices: NDArray[np.int64]) -> "Positions":
        """Images as they are, with the first of their captions."""
        return cls(indices, np.zeros(len(indices), np.bool_), np.zeros(len(indices)))

    def part(self, which: slice) -> "Positions":
        """Some of them."""
        return Positions(self.indices[which], self.flips[which], self.uniform[which])


def epoch_order(seed: int, epoch: int, num_images: int, choose: bool = False) -> Positions:
    """The order of one epoch.

    It sorts raw words of the Philox generator with the key (seed, epoch); numpy promises that these never change, which
    it does not of its shuffling.

    Args:
        seed: at least 0.
        epoch: at least 0.
        num_images: N.
        choose: whether to draw the numbers that choose captions, which changes nothing else.

    Returns:
        the N places: the indices are a permutation of 0..N-1.
    """
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw((2 + choose) * num_images)
    return shuffled(np.arange(num_images), words, choose)


def raw_words(seed: int, epoch: int, place: tuple[int, int], number: int) -> NDArray[np.uint64]:
    """Raw words of the Philox generator with the key (seed, epoch), from a place of its 256-bit counter on.

    `epoch_order` counts from 0: the upper words keep other draws apart from those.

    Args:
        seed: at least 0.
        epoch: at least 0.
        place: what is drawn, at least 1; and for which part of it.
        number: of words.
    """
    kind, part = place
    philox = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, 0, part, kind], np.uint64))
    return philox.random_raw(number)


def shuffled(rows: NDArray[np.int64], words: NDArray[np.uint64], choose: bool) -> Positions:
    """Rows in an order that random words decide.

    Args:
        rows: (R,).
        words: (2 R,): R that are sorted by, and R of which one bit each mirrors; with `choose` R more.
        choose: whether numbers that choose captions are made of the last.
    """
    number = len(rows)
    order, flips, chances = (words[part * number : (part + 1) * number] for part in range(3))
    uniform = (chances >> np.uint64(11)).astype(np.float64) * 2.0**-53 if choose else np.zeros(number)
    return Positions(rows[np.argsort(order, kind="stable")], flips >> np.uint64(63) == 1, uniform)


class SampleStream(torch.utils.data.Sampler[Positions]):
    """Endless micro-batches of one process.

    The stream is all epochs one after the other, each a permutation of the N images. Optimizer step k takes its
    positions [k * batch_size, (k + 1) * batch_size), which may straddle epochs, and cuts them into `accumulate`
    micro-batches; of each, process r takes the images r, r + world_size, ... So a step takes the same images for any
    number of processes and any `accumulate`, and no image is given twice within an epoch.

    Args:
        num_images: N, at least 1; it may be smaller than `batch_size`.
        batch_size: images of an optimizer step over all processes; divisible by ``world_size * accumulate``.
        seed: chooses the order.
        flip: whether to draw mirrorings; otherwise all are False.
        rank: this process's number.
        world_size: number of processes.
        accumulate: micro-batches of an optimizer step.
        start: returns how many micro-batches of this process are already consumed. It is called whenever an iteration
            begins, so a trainer that begins a new iteration continues the stream instead of repeating it.
        choose: whether to draw the numbers that choose captions; otherwise all are 0.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int = 0,
        flip: bool = False,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        start: Callable[[], int] = lambda: 0,
        choose: bool = False,
    ) -> None:
        assert num_images >= 1, num_images
        assert batch_size % (world_size * accumulate) == 0, (batch_size, world_size, accumulate)
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.flip = flip
        self.rank = rank
        self.world_size = world_size
        self.accumulate = accumulate
        self.start = start
        self.choose = choose

    def __iter__(self) -> Iterator[Positions]:
        # Positions only grow, so only the current stretch is cached.
        order = functools.lru_cache(maxsize=1)(self._order)
        size = self.batch_size // self.accumulate
        micro_batch = self.start()
        while True:
            places = self._take(micro_batch * size, size, order)
            yield places.part(slice(self.rank, None, self.world_size))
            micro_batch += 1

    def _find(self, position: int) -> tuple[int, int]:
        """The number of the stretch of the stream that holds a position, and the place there; it is an epoch here."""
        return divmod(position, self.num_images)

    def _order(self, stretch: int) -> Positions:
        return epoch_order(self.seed, stretch, self.num_images, self.choose)

    def _take(self, position: int, count: int, order: Callable[[int], Positions]) -> Positions:
        """The `count` images from `position` of the stream on."""
        parts: list[Positions] = []
        while count:
            stretch, offset = self._find(position)
            places = order(stretch)
            length = min(count, len(places.indices) - offset)
            parts.append(places.part(slice(offset, offset + length)))
            position, count = position + length, count - length
        indices, flips, uniform = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Positions(indices, flips & self.flip, uniform)
