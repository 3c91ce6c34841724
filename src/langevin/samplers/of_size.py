"""Requests of samples of another size than usual."""

from collections.abc import Sequence
from typing import Any

import torch

from langevin.conditions.size import whole
from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.images import SIZE
from langevin.samplers.requests import FurtherRequests, Requests


class OfSize(FurtherRequests):
    """Other requests, of whole images of a size.

    Args:
        requests: the others.
        height: of each sample, in pixels.
        width: likewise.
    """

    def __init__(self, requests: Requests, height: int, width: int) -> None:
        super().__init__(requests)
        self.size = (height, width)

    def model_cond(
        self, denoiser: Denoiser, indices: Sequence[int], seed: int, device: torch.device | str
    ) -> Condition:
        """See `Requests`: with the size, which only a model with that condition reads."""
        told = whole(*self.size, device).expand(len(indices), -1)
        return {**self.requests.model_cond(denoiser, indices, seed, device), SIZE: told}

    def record(self) -> dict[str, Any]:
        """See `Requests`: with the size."""
        return {**self.requests.record(), "size": list(self.size)}
