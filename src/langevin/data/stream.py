"""The order of images: a pure function of the seed and the position, for any number of processes."""

import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

Positions = tuple[NDArray[np.int64], NDArray[np.bool_]]


def epoch_order(seed: int, epoch: int, num_images: int) -> Positions:
    """The order of one epoch.

    It sorts raw words of the Philox generator with the key (seed, epoch); numpy promises that these never change, which
    it does not of its shuffling.

    Args:
        seed: at least 0.
        epoch: at least 0.
        num_images: N.

    Returns:
        (N,) int64, a permutation of 0..N-1; and (N,) bool, whether to mirror the image at each place of it.
    """
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(2 * num_images)
    return np.argsort(words[:num_images], kind="stable"), words[num_images:] >> np.uint64(63) == 1


class SampleStream(torch.utils.data.Sampler[Positions]):
    """Endless micro-batches of one process, as (indices int64, flips bool) arrays.

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

    def __iter__(self) -> Iterator[Positions]:
        # Positions only grow, so only the current epoch is cached.
        order = functools.lru_cache(maxsize=1)(lambda epoch: epoch_order(self.seed, epoch, self.num_images))
        size = self.batch_size // self.accumulate
        micro_batch = self.start()
        while True:
            indices, flips = self._take(micro_batch * size, size, order)
            yield indices[self.rank :: self.world_size], flips[self.rank :: self.world_size]
            micro_batch += 1

    def _take(self, position: int, count: int, order: Callable[[int], Positions]) -> Positions:
        """The `count` images from `position` of the stream on."""
        parts: list[Positions] = []
        while count:
            epoch, offset = divmod(position, self.num_images)
            length = min(count, self.num_images - offset)
            indices, flips = order(epoch)
            parts.append((indices[offset : offset + length], flips[offset : offset + length]))
            position, count = position + length, count - length
        indices, flips = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return indices, flips & self.flip
