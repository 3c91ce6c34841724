"""Captions made of class names and of how bright an image is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langevin.data.caption_writer import CaptionWriter
from langevin.data.source import Source
from langevin.errors import UserError

BRIGHTNESS = ("dark", "medium", "bright")
"""The words for the thirds of the training images, by their mean level."""
_AN, _NOT_AN = ("a", "e", "i", "o", "u", "suv"), ("eu", "one", "uni")  # what "an" stands before
_CHUNK = 4096  # images whose levels are summed together


class Templates(CaptionWriter):
    """Captions of labelled images, such as "a seven", "a bright seven", "an image of a seven".

    An image is "dark", "medium" or "bright" by the third of the training images' mean levels that its own lies in, over
    all channels alike.

    Args:
        held_out: see `CaptionWriter`.
    """

    def __init__(self, held_out: Sequence[Sequence[str]] = ()) -> None:
        super().__init__(held_out)

    def check(self, source: Source) -> None:
        """See `CaptionWriter`: images without captions of their own."""
        if "caption" in source.columns:
            raise UserError("describes images without captions, and this data has its own; leave it out")
        if len(source.shape) != 3:
            raise UserError(f"describes images (C, H, W), and these samples are of shape {source.shape}; leave it out")

    def write(
        self, samples: NDArray[Any], labels: NDArray[np.int64], phrases: Sequence[Sequence[str]], train: NDArray[Any]
    ) -> list[list[str]]:
        """See `CaptionWriter`."""
        sums = _sums(samples)
        terciles = np.quantile(sums if samples is train else _sums(train), [1 / 3, 2 / 3])
        thirds = np.searchsorted(terciles, sums)
        of = [[_captions(own, brightness) for brightness in BRIGHTNESS] for own in phrases]
        return [of[label][third] for label, third in zip(labels.tolist(), thirds.tolist(), strict=True)]


def _sums(samples: NDArray[Any]) -> NDArray[np.int64]:
    """The sum of the levels of each image: whole numbers, so that it is the same everywhere."""
    parts = [samples[first : first + _CHUNK] for first in range(0, len(samples), _CHUNK)]
    return np.concatenate([part.reshape(len(part), -1).sum(1, dtype=np.int64) for part in parts])


def _captions(phrases: Sequence[str], brightness: str) -> list[str]:
    """The captions of an image that may be called by some noun phrases."""
    short = [caption for phrase in phrases for caption in (_with_article(phrase), f"a {brightness} {phrase}")]
    usual = phrases[0]
    return [*short, f"an image of {_with_article(usual)}", f"a {brightness} image of {_with_article(usual)}"]


def _with_article(phrase: str) -> str:
    begins = phrase.lower().startswith
    return f"{'an' if begins(_AN) and not begins(_NOT_AN) else 'a'} {phrase}"
