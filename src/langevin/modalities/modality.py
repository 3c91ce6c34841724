"""The interface of every kind of samples."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from langevin.config.types import path_of
from langevin.images import Figure


class Modality(ABC):
    """How stored samples become a model's input and back, and how a person looks at them.

    Stored samples are arrays (N, *size, C) on disk and tensors (B, C, *size) in memory, those of vectors (N, D) and
    (B, D); a model's are float32 tensors of the same shape. A data source names its modality; it is stored with a
    model's weights by its class's path, so that samples can be made without the data.

    Attributes:
        noun: what its samples are called, in the plural.
        levels: see `DataSpec`.
        suffix: of the file of one sample; None where a sample is not a file.
        previewed: how many samples a preview shows, at most.
        traced: how many samples strips show, at most.
    """

    noun: ClassVar[str]
    levels: ClassVar[int | None] = None
    suffix: ClassVar[str | None] = None
    previewed: ClassVar[int] = 100
    traced: ClassVar[int] = 8

    @classmethod
    def path(cls) -> str:
        """The full path of the class."""
        return path_of(cls)

    @abstractmethod
    def to_model(self, stored: Tensor) -> Tensor:
        """A model's input, float32 (B, C, *size), of stored samples (B, C, *size)."""

    @abstractmethod
    def from_model(self, x: Tensor) -> Tensor:
        """The stored samples that x (B, C, *size) is nearest to: the inverse of `to_model`."""

    @abstractmethod
    def preview(self, samples: Tensor, columns: int, classes: Sequence[str] | None = None) -> Figure:
        """Stored samples (N, C, *size) to be looked at.

        Args:
            samples: see above.
            columns: how many are in a row, where each is shown by itself.
            classes: what each is to be labelled with; None where they have no classes.
        """

    @abstractmethod
    def strips(
        self,
        x_t: Sequence[Tensor],
        x: Sequence[Tensor],
        finished: Tensor,
        times: Sequence[str] = (),
        classes: Sequence[str] | None = None,
    ) -> Figure:
        """How samples come out of noise.

        Args:
            x_t: the noisy samples (N, C, *size), as stored, at each of some times.
            x: the predicted ones, likewise.
            finished: the samples that came of them, likewise.
            times: what each of the times is to be labelled with; empty: with nothing.
            classes: what each sample is to be labelled with; None where they have no classes.
        """

    def beside(self, kinds: Mapping[str, Tensor], columns: int, classes: Sequence[str] | None = None) -> Figure:
        """Samples beside what they were made of; here the samples alone.

        Args:
            kinds: stored samples (N, C, *size) each, by what they are, such as "original"; the last are what was made.
            columns: how many images are in a row, about.
            classes: what each sample is to be labelled with; None where they have no classes.
        """
        return self.preview([*kinds.values()][-1], columns, classes)

    def write(self, path: Path, sample: Tensor) -> None:
        """Write one stored sample (C, *size) as a file; only where there is a `suffix`."""
        raise NotImplementedError
