"""Given samples, that others are made of."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin.diffusion.denoiser import Condition
from langevin.modalities.modality import Modality
from langevin.samplers.requests import FurtherRequests, Requests


class Given(NamedTuple):
    """Samples to be reconstructed, or restored.

    Attributes:
        samples: as stored, (N, *size, C).
        labels: int64 (N,); None without.
        split: which part of the data they are: "test" or "train"; None: of no data, but a user's own.
        digest: of the data they are a part of, or of themselves.
        hints: that come with them, uint8 (N, H, W, 1); None without.
    """

    samples: NDArray[Any]
    labels: NDArray[np.int64] | None
    split: str | None
    digest: str
    hints: NDArray[np.uint8] | None = None


class OfGiven(Requests):
    """The labels of given samples; with more requests than samples these come again from the first.

    Args:
        labels: int64 (N,); None without.
    """

    def __init__(self, labels: NDArray[np.int64] | None) -> None:
        self.labels = labels

    def cond(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Condition:
        """See `Requests`."""
        if self.labels is None:
            return {}
        places = np.asarray(indices) % len(self.labels)
        return {"label": torch.from_numpy(self.labels[places]).to(device)}

    def record(self) -> dict[str, Any]:
        """See `Requests`; which samples these are is said elsewhere."""
        return {} if self.labels is None else {"labels": "their own"}


class OfImages(FurtherRequests):
    """Other requests, and with sample i the i-th of some images.

    Args:
        requests: the others, such as labels.
        images: as stored, (N, H, W, C); of at most N samples.
        modality: what the images are.
    """

    def __init__(self, requests: Requests, images: NDArray[np.uint8], modality: Modality) -> None:
        super().__init__(requests)
        self.images = images
        self.modality = modality

    def stored(self, indices: Sequence[int]) -> Tensor:
        """Some of the images, (B, C, H, W) of bytes."""
        return torch.from_numpy(self.images[np.asarray(indices)]).movedim(-1, 1)

    @property
    def digest(self) -> str:
        """The sha256 of the images."""
        return sha256_of(self.images)


def sha256_of(array: NDArray[Any]) -> str:
    """The sha256, in hexadecimal digits, of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
