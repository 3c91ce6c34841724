"""Captions as ids of words, for encoders that are trained with the model."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from langevin.errors import OptionError
from langevin.text.encoder import TEXT, TextEncoder
from langevin.words import words_of

PADDING, BEGIN, END = range(3)
BYTES = 256


class Words:
    """Gives each word of a vocabulary an id, and spells all others by their UTF-8 bytes: no text is out of reach.

    The ids: `PADDING`, `BEGIN`, `END`, then the bytes that begin a word, the bytes within one, and the vocabulary. So
    two texts of different words never have the same ids.

    Args:
        vocabulary: the known words, in lower case.

    Attributes:
        ids: that of each known word.
        size: how many ids there are.
    """

    first = END + 1 + 2 * BYTES
    """The id of the first word."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.ids = {word: self.first + place for place, word in enumerate(vocabulary)}
        self.size = self.first + len(vocabulary)
        self.digest = hashlib.sha256("\n".join(vocabulary).encode("utf-8", "surrogatepass")).hexdigest()

    def rows(self, captions: Sequence[str], length: int) -> Tensor:
        """The ids of captions, int64 (N, length): `BEGIN`, the words, `END`, `PADDING`; what is too long is cut."""
        rows = np.full((len(captions), length), PADDING)
        for row, caption in zip(rows, captions, strict=True):
            ids = [BEGIN, *itertools.islice(self._ids(caption), length - 2), END]
            row[: len(ids)] = ids
        return torch.from_numpy(rows)

    def _ids(self, caption: str) -> Iterator[int]:
        for word in words_of(caption):
            if word in self.ids:
                yield self.ids[word]
                continue
            for place, byte in enumerate(word.encode("utf-8", "surrogatepass")):
                yield END + 1 + byte + BYTES * (place > 0)


class WordEncoder(TextEncoder):
    """An encoder that begins with an embedding of each word: its column "text" holds ids, int64 (length,).

    Args:
        vocabulary: the known words.
        length: of a caption, in ids, the beginning and the end included.
        width: of the embeddings.

    Raises:
        OptionError: when an option is out of range.
    """

    def __init__(self, vocabulary: Sequence[str], length: int, width: int) -> None:
        super().__init__()
        if length < 3:
            raise OptionError("length", f"is {length}; allowed: at least 3, a word between the beginning and the end")
        self.words = Words(vocabulary)
        self.length = length
        self.columns = {TEXT: ((length,), torch.int64)}
        self.function = f"words {self.words.digest} length {length}"
        self.embedding = nn.Embedding(self.words.size, width)

    @torch.no_grad()
    def take_words(self, other: "WordEncoder") -> None:
        """Start the embeddings of the words and bytes that another encoder of this width knows too with its own."""
        for word, place in self.words.ids.items():
            if word in other.words.ids:
                self.embedding.weight[place] = other.embedding.weight[other.words.ids[word]]
        self.embedding.weight[: self.words.first] = other.embedding.weight[: other.words.first]

    def prepare(self, captions: Sequence[str], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """See `TextEncoder`: the ids of the words, wherever the rest is computed."""
        return {TEXT: self.words.rows(captions, self.length)}
