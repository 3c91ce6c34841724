"""What an opened split of data is, wherever its samples lie."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from langevin.data.captions import Captions


class OpenedSamples(Protocol):
    """N samples and all that is known of them; see `langevin.data.cache.CachedSamples`."""

    labels: NDArray[np.int64]
    class_names: tuple[str, ...] | None
    skipped: tuple[str, ...]
    enlarged: tuple[int, tuple[str, ...]]

    def __len__(self) -> int: ...

    @property
    def samples(self) -> NDArray[Any]:
        """(N, *size, C) as stored.

        Raises:
            UserError: where they are not kept.
        """

    @property
    def captions(self) -> Captions | None:
        """At least one of each; None where they have none."""

    @property
    def hints(self) -> "OpenedSamples | None":
        """The hints that come with them, as many; None where there are none."""

    @property
    def digest(self) -> str:
        """What the data is."""

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> dict[str, Tensor]:
        """Some of the samples, by their places in the data."""
