"""What makes numbered samples of a model: by sampling, or by reconstruction of given ones."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from langevin.batches import Batches
from langevin.diffusion.denoiser import Condition
from langevin.modalities.modality import Modality
from langevin.samplers.requests import Requests
from langevin.samplers.store import SampleStore

SAMPLES = "images"
"""What a store of finished batches calls the samples, whatever they are."""
NOISY = "noisy"
"""What it calls samples of a truncated stage as the next one is given them, float32 and not rounded to levels."""


class SampleBatch(NamedTuple):
    """A batch of finished samples.

    Attributes:
        indices: which ones these are, int64 (B,), on the CPU.
        samples: as stored, (B, C, *size): images are uint8.
        cond: the columns of their conditions, (B, ...) each; none where they have no condition.
        target: what each should have been, likewise, where that is known; else None.
        noisy: of a truncated stage, what the next is given, float32 (B, C, *size); else None.
    """

    indices: Tensor
    samples: Tensor
    cond: Condition
    target: Tensor | None = None
    noisy: Tensor | None = None


class Pipeline(ABC):
    """Makes samples by number: sample i is the same for any batch size and number of processes.

    Attributes:
        modality: what the samples are.
        requests: the condition of each.
    """

    modality: Modality
    requests: Requests

    @abstractmethod
    def __call__(
        self, model: Any, indices: Sequence[int], seed: int, batch_size: int, device: torch.device | str
    ) -> Iterator[SampleBatch]:
        """Make the samples `indices` of `seed`, `batch_size` at a time."""

    @abstractmethod
    def stored(
        self, model: Any, batches: Batches, seed: int, device: torch.device | str, store: SampleStore | None
    ) -> Iterator[SampleBatch]:
        """Make this process's share of the samples of `seed`, but for those that are in a store already.

        Args:
            model: whose samples are made, on that device.
            batches: which samples.
            seed: of the samples.
            device: where.
            store: keeps finished batches; None: nothing does.
        """

    @abstractmethod
    def record(self, model: Any, seed: int, precision: str = "32-true") -> dict[str, Any]:
        """How its samples are made, for a protocol: plain values.

        Args:
            model: whose samples are made.
            seed: of the samples.
            precision: that the model is evaluated in, by Lightning's names.
        """
