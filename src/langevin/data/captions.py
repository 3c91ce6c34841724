"""The captions of one split: each text once, and which of them each sample has."""

import functools
import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar, overload

import numpy as np
from numpy.typing import NDArray

from langevin.errors import UserError
from langevin.words import words_of

MAX_WORDS = 8192
"""How many words a vocabulary holds at most."""


class LazyTexts(Sequence[str]):
    """Texts that are made when they are asked for."""

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return self.text(range(len(self))[index])  # raises IndexError, on which iteration relies

    @abstractmethod
    def text(self, place: int) -> str:
        """The text at a place in [0, len)."""


class StoredTexts(LazyTexts):
    """Texts as the bytes of UTF-8, each decoded when it is asked for.

    Args:
        utf8: (bytes,) uint8, of all texts one after the other.
        bounds: (T + 1,) int64, where each of them begins, and the end.
    """

    def __init__(self, utf8: NDArray[np.uint8], bounds: NDArray[np.int64]) -> None:
        self.utf8 = utf8
        self.bounds = bounds

    @classmethod
    def of(cls, texts: Iterable[str]) -> "StoredTexts":
        """Texts that are lists of characters now."""
        encoded = [text.encode() for text in texts]
        bounds = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), bounds)

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of all texts, in their order."""
        whole = hashlib.sha256(np.asarray(self.bounds, "<i8").tobytes())
        whole.update(self.utf8.tobytes())
        return whole.hexdigest()

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def text(self, place: int) -> str:
        """See `LazyTexts`."""
        return self.utf8[self.bounds[place] : self.bounds[place + 1]].tobytes().decode()


class Captions:
    """The captions of one split.

    Args:
        texts: the T distinct captions, in the order of their first appearance.
        ids: (M,) int32, the captions of all samples one after the other, by their places in `texts`.
        starts: (N + 1,) int64, where those of each sample begin in `ids`, and the end.
        vocabulary: where it is known already.
    """

    FILES: ClassVar[tuple[str, ...]] = ("captions_utf8", "captions_bounds", "captions_ids", "captions_starts")
    """What its arrays are called in a cache."""

    def __init__(
        self,
        texts: StoredTexts,
        ids: NDArray[np.int32],
        starts: NDArray[np.int64],
        vocabulary: tuple[str, ...] | None = None,
    ) -> None:
        self.texts = texts
        self.ids = ids
        self.starts = starts
        self._vocabulary = vocabulary

    @classmethod
    def pack(cls, captions: Sequence[Sequence[str]], name: Callable[[int], str]) -> "Captions":
        """The captions of samples that are lists now.

        Args:
            captions: of each sample, at least one each.
            name: what to call a sample in a message.

        Raises:
            UserError: when a sample has none, or one that is empty or no Unicode.
        """
        places: dict[str, int] = {}
        ids: list[int] = []
        starts = [0]
        for index, own in enumerate(captions):
            if not own:
                raise UserError(f"{name(index)} has no caption; give it one, or remove it")
            for text in own:
                if (place := places.get(text)) is None:
                    _refuse_unusable(text, name(index))
                    place = places[text] = len(places)
                ids.append(place)
            starts.append(len(ids))
        return cls(StoredTexts.of(places), np.array(ids, np.int32), np.array(starts, np.int64))

    @classmethod
    def joined(cls, parts: Iterable["Captions"]) -> "Captions":
        """The captions of samples that lie in several parts, in order."""
        places: dict[str, int] = {}
        ids: list[NDArray[np.int32]] = []
        numbers: list[NDArray[np.int64]] = []
        for part in parts:
            places_of = np.array([places.setdefault(text, len(places)) for text in part.texts], np.int32)
            ids.append(places_of[part.ids])
            numbers.append(np.diff(part.starts))
        starts = np.cumsum(np.concatenate([[0], *numbers]), dtype=np.int64)
        return cls(StoredTexts.of(places), np.concatenate(ids), starts)

    @classmethod
    def read(cls, folder: Path, vocabulary: tuple[str, ...]) -> "Captions":
        """Those that `arrays` gave, memory-mapped from a cache.

        Args:
            folder: of the cache.
            vocabulary: which the cache has noted.

        Raises:
            OSError, ValueError: when a file is missing or damaged.
        """
        utf8, bounds, ids, starts = (np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in cls.FILES)
        return cls(StoredTexts(utf8, bounds), ids, starts, vocabulary)

    def arrays(self) -> dict[str, NDArray]:
        """What a cache stores, by the names of `FILES`."""
        return dict(zip(self.FILES, (self.texts.utf8, self.texts.bounds, self.ids, self.starts), strict=True))

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.starts) - 1

    def of(self, index: int) -> list[str]:
        """All captions of a sample."""
        return [self.texts[int(place)] for place in self.ids[self.starts[index] : self.starts[index + 1]]]

    def choose(self, indices: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """One caption of each sample.

        Args:
            indices: (B,) the samples.
            uniform: (B,) numbers in [0, 1), each of which chooses one of that sample's captions; 0 chooses the first.

        Returns:
            (B,) int64 places in `texts`.
        """
        starts = self.starts[indices]
        numbers = self.starts[indices + 1] - starts
        return self.ids[starts + (uniform * numbers).astype(np.int64)].astype(np.int64)

    def kept(self, indices: NDArray[np.int64]) -> "Captions":
        """The captions of some of the samples alone."""
        return Captions.pack([self.of(int(index)) for index in indices], "sample {}".format)

    def with_words(self, words: Iterable[str]) -> NDArray[np.bool_]:
        """Which samples have a caption with all of some words: (N,) bool."""
        wanted = set(words)
        has = np.array([wanted <= set(words_of(text)) for text in self.texts], np.bool_)
        return np.logical_or.reduceat(has[self.ids], self.starts[:-1])

    @functools.cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The most frequent words of all samples' captions, `MAX_WORDS` at most, by frequency and then the alphabet."""
        if self._vocabulary is not None:
            return self._vocabulary
        counts: Counter[str] = Counter()
        for text, number in zip(self.texts, np.bincount(self.ids, minlength=len(self.texts)).tolist(), strict=True):
            for word in words_of(text):
                counts[word] += number
        return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:MAX_WORDS])

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of the captions of all samples, in their order."""
        whole = hashlib.sha256(self.texts.digest.encode())
        for numbers in (self.starts, self.ids):
            whole.update(np.asarray(numbers, "<i8").tobytes())
        return whole.hexdigest()


class FirstCaptions(LazyTexts):
    """The first caption of each sample.

    Args:
        captions: all of them.
    """

    def __init__(self, captions: Captions) -> None:
        self.captions = captions

    def __len__(self) -> int:
        return len(self.captions)

    def text(self, place: int) -> str:
        """See `LazyTexts`."""
        return self.captions.texts[int(self.captions.ids[self.captions.starts[place]])]


def _refuse_unusable(text: str, name: str) -> None:
    if not text.strip():
        raise UserError(f"{name} has an empty caption; write one, or remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{name} has a caption that is no Unicode text ({error.reason} at {error.start})") from error
