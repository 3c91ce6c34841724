"""The order of images that lie in blocks: blocks are shuffled, then the rows of a few blocks at a time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from langevin.data.stream import Positions, SampleStream, raw_words, shuffled

_BLOCKS, _ROWS = 1, 2  # the word of Philox's counter that keeps the two kinds of draws, and all pools, apart


class Pools(NamedTuple):
    """How an epoch is cut into pools.

    Attributes:
        blocks: (B,) int64, a permutation of the blocks; pool p has those from p * window on.
        bounds: (P + 1,) int64, the places of the epoch at which the pools begin, and the end.
    """

    blocks: NDArray[np.int64]
    bounds: NDArray[np.int64]


def pools_of(seed: int, epoch: int, counts: NDArray[np.int64], window: int) -> Pools:
    """The pools of one epoch.

    Args:
        seed: at least 0.
        epoch: at least 0.
        counts: (B,) the rows of each block.
        window: how many blocks make a pool; the last pool of an epoch may have fewer.
    """
    blocks = np.argsort(raw_words(seed, epoch, (_BLOCKS, 0), len(counts)), kind="stable")
    ends = np.cumsum(counts[blocks])
    last = np.minimum(np.arange(window, len(counts) + window, window), len(counts)) - 1
    return Pools(blocks, np.concatenate([[0], ends[last]]))


def pool_order(seed: int, epoch: int, pool: int, rows: NDArray[np.int64], choose: bool = False) -> Positions:
    """The order of one pool's rows; see `langevin.data.stream.epoch_order`.

    Args:
        seed: at least 0.
        epoch: at least 0.
        pool: its number in the epoch.
        rows: (R,) those of all its blocks.
        choose: whether to draw the numbers that choose captions, which changes nothing else.
    """
    return shuffled(rows, raw_words(seed, epoch, (_ROWS, pool), (2 + choose) * len(rows)), choose)


class BlockStream(SampleStream):
    """A `SampleStream` in which the images that stand near each other lie in few blocks.

    An epoch has each block once, in an order that (seed, epoch) decides; `window` of them in turn form a pool, whose
    rows stand in an order that (seed, epoch, pool) decides. So what stands at a position is a function of it alone, and
    while the stream is within a pool, only its blocks are read.

    Args:
        counts: (B,) the rows of each block, of which rows are numbered one after the other.
        window: blocks of a pool; as many as there are, or more, shuffle all images.
        **options: see `SampleStream`; without `num_images`.
    """

    def __init__(self, counts: Sequence[int] | NDArray[np.int64], window: int, **options: Any) -> None:
        self.counts = np.asarray(counts, np.int64)
        super().__init__(num_images=int(self.counts.sum()), **options)
        assert window >= 1, window
        self.window = window
        self._starts = np.cumsum(self.counts) - self.counts
        self._number = -(-len(self.counts) // window)  # of pools
        self._now: tuple[int, Pools] | None = None  # those of the present epoch

    def _find(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self.num_images)
        bounds = self._pools(epoch).bounds
        pool = int(np.searchsorted(bounds, place, side="right")) - 1
        return epoch * self._number + pool, place - int(bounds[pool])

    def _order(self, stretch: int) -> Positions:
        epoch, pool = divmod(stretch, self._number)
        blocks = self._pools(epoch).blocks[pool * self.window : (pool + 1) * self.window]
        rows = np.concatenate([np.arange(self.counts[each]) + self._starts[each] for each in blocks])
        return pool_order(self.seed, epoch, pool, rows, self.choose)

    def _pools(self, epoch: int) -> Pools:
        if self._now is None or self._now[0] != epoch:
            self._now = epoch, pools_of(self.seed, epoch, self.counts, self.window)
        return self._now[1]
