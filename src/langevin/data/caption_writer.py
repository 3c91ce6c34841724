"""What writes captions of samples that have none."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langevin.data.captions import Captions
from langevin.data.source import Source
from langevin.errors import OptionError, UserError
from langevin.words import words_of


class CaptionWriter(ABC):
    """Writes captions of samples that have none: one subclass a file, chosen by the Hydra group ``captions``.

    Args:
        held_out: groups of words: a sample with a caption that has all words of one of them is not trained on. It stays
            in the data and in the statistics that samples are compared with.

    Raises:
        UserError: when a group has no word.
    """

    def __init__(self, held_out: Sequence[Sequence[str]] = ()) -> None:
        self.held_out = tuple(tuple(words_of(" ".join(group))) for group in held_out)
        if not all(self.held_out):
            raise OptionError("held_out", "has an empty group; allowed: groups of words, such as [[seven, bright]]")

    @abstractmethod
    def check(self, source: Source) -> None:
        """Look whether a source's samples can be described, as far as that shows without them.

        Raises:
            UserError: when they cannot.
        """

    @abstractmethod
    def write(
        self, samples: NDArray[Any], labels: NDArray[np.int64], phrases: Sequence[Sequence[str]], train: NDArray[Any]
    ) -> list[list[str]]:
        """Describe samples.

        Args:
            samples: (N, *size, C) as stored.
            labels: (N,) int64.
            phrases: what samples of each class may be called, see `Source.phrases`.
            train: the training samples, to which properties are relative.

        Returns:
            the captions of each sample, at least one.
        """

    def trained(self, captions: Captions) -> NDArray[np.int64] | None:
        """The indices of the training samples that are trained on; None for all.

        Raises:
            UserError: when no sample has the words of a group, or none would be left.
        """
        if not self.held_out:
            return None
        left_out = np.zeros(len(captions), np.bool_)
        for words in self.held_out:
            found = captions.with_words(words)
            if not found.any():
                known = ", ".join(captions.vocabulary[:30])
                raise UserError(
                    f"captions.held_out: no training caption has {' and '.join(words)} together; its words are {known}"
                )
            left_out |= found
        if left_out.all():
            raise UserError("captions.held_out: no sample is left to be trained on; hold out fewer")
        return np.flatnonzero(~left_out)
