"""Requests of a model whose conditions are computed of images: of those of its data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.draws import conditioning_draws
from langevin.modalities.modality import Modality
from langevin.samplers.reconstruct import Given
from langevin.samplers.requests import Requests


class DerivedRequests(Requests):
    """Other requests, and with sample i the columns that the model's conditions derive of the i-th of given samples.

    With more requests than samples these come again from the first; what is random in the columns is of (seed, i).

    Args:
        requests: the others, such as labels.
        given: the samples.
        modality: what they are.
    """

    def __init__(self, requests: Requests, given: Given, modality: Modality) -> None:
        self.requests = requests
        self.given = given
        self.modality = modality

    def cond(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Condition:
        """See `Requests`: of the other requests alone."""
        return self.requests.cond(indices, device)

    def model_cond(
        self, denoiser: Denoiser, indices: Sequence[int], seed: int, device: torch.device | str
    ) -> Condition:
        """See `Requests`."""
        stored = self.given.samples[np.asarray(indices) % len(self.given.samples)]
        x = self.modality.to_model(torch.from_numpy(stored).movedim(-1, 1).to(device))
        draws = conditioning_draws(seed, indices, x.shape[1:], device)
        others = self.requests.model_cond(denoiser, indices, seed, device)
        return {**others, **denoiser.derive(x, draws, sampling=True)}

    def record(self) -> dict[str, Any]:
        """See `Requests`: with which split of which data the columns are computed of."""
        return {**self.requests.record(), "derived": {"split": self.given.split, "sha256": self.given.digest}}
