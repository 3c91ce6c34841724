"""The order of images that lie in buckets: each optimizer step has images of one bucket."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langevin.data.stream import Positions, SampleStream, raw_words, shuffled

_STEPS, _IMAGES = 3, 4  # the word of Philox's counter that keeps the two kinds of draws apart, and from those of blocks


class BucketStream(SampleStream):
    """A `SampleStream` in which the images of an optimizer step are of one bucket.

    Each bucket has an endless stream of its own, all its images in a new order again and again, which is cut into
    steps. An epoch e of all N images has those steps of each bucket that end within the e-th round of its images, and
    takes them in an order that (seed, e) decides. So a bucket gets its share of the steps, no image of it is given
    again before all others were, and what a step has is a function of its number alone.

    Args:
        bucket: (N,) that of each image.
        **options: see `SampleStream`; without `num_images`.
    """

    def __init__(self, bucket: NDArray[np.int64], **options: Any) -> None:
        super().__init__(num_images=len(bucket), **options)
        self.members = [rows for each in range(int(bucket.max()) + 1) if len(rows := np.flatnonzero(bucket == each))]
        self.counts = [len(rows) for rows in self.members]
        self._now: tuple[int, NDArray[np.int64]] | None = None  # the buckets of the present epoch's steps
        self._rounds: dict[int, tuple[int, Positions]] = {}  # of each bucket the last that was made

    def _find(self, position: int) -> tuple[int, int]:
        return divmod(position, self.batch_size)  # a stretch is a step

    def _order(self, stretch: int) -> Positions:
        """The images of a step."""
        epoch = self._epoch(stretch)
        buckets = self._buckets(epoch)
        place = stretch - self._before(epoch)
        bucket = int(buckets[place])
        earlier = epoch * self.counts[bucket] // self.batch_size + int((buckets[:place] == bucket).sum())
        return self._images(bucket, earlier * self.batch_size)

    def _buckets(self, epoch: int) -> NDArray[np.int64]:
        """The bucket of each step of an epoch."""
        if self._now is None or self._now[0] != epoch:
            buckets = np.repeat(np.arange(len(self.counts)), self._steps(epoch))
            words = raw_words(self.seed, epoch, (_STEPS, 0), len(buckets))
            self._now = epoch, buckets[np.argsort(words, kind="stable")]
        return self._now[1]

    def _before(self, epoch: int) -> int:
        """How many steps all epochs before one have."""
        return sum(epoch * count // self.batch_size for count in self.counts)

    def _steps(self, epoch: int) -> Sequence[int]:
        """How many steps of each bucket an epoch has."""
        return [(epoch + 1) * count // self.batch_size - epoch * count // self.batch_size for count in self.counts]

    def _epoch(self, step: int) -> int:
        """The epoch of a step: the last with at most so many steps before it."""
        least, most = 0, (step + 1 + len(self.counts)) * self.batch_size // self.num_images + 1
        while most - least > 1:
            middle = (least + most) // 2
            least, most = (middle, most) if self._before(middle) <= step else (least, middle)
        return least

    def _images(self, bucket: int, position: int) -> Positions:
        """A batch from a position of a bucket's stream on."""
        parts, left = list[Positions](), self.batch_size
        while left:
            epoch, offset = divmod(position, self.counts[bucket])
            places = self._round(bucket, epoch).part(slice(offset, offset + left))
            parts.append(places)
            position, left = position + len(places.indices), left - len(places.indices)
        return Positions(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _round(self, bucket: int, epoch: int) -> Positions:
        """All images of a bucket, in the order of one round."""
        known = self._rounds.get(bucket)
        if known is None or known[0] != epoch:
            rows = self.members[bucket]
            words = raw_words(self.seed, epoch, (_IMAGES, bucket), (2 + self.choose) * len(rows))
            known = self._rounds[bucket] = epoch, shuffled(rows, words, self.choose)
        return known[1]
