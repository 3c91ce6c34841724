"""Requests of a model whose conditions are computed of images, or come with them: of those of its data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.draws import conditioning_draws
from langevin.images import HINT, from_file
from langevin.modalities.modality import Modality
from langevin.samplers.given import Given
from langevin.samplers.requests import Requests


class DerivedRequests(Requests):
    """Sample i has the columns that the model's conditions derive of the i-th of given samples, its hint and its label.

    With more requests than samples these come again from the first; what is random in the columns is of (seed, i).

    Args:
        given: the samples.
        modality: what they are.
        others: what is requested beside the columns: labels and prompts; None: the labels of the samples.
    """

    def __init__(self, given: Given, modality: Modality, others: Requests | None = None) -> None:
        self.given = given
        self.modality = modality
        self.others = others

    @property
    def prompts(self) -> Sequence[str] | None:
        """See `Requests`: of the other requests."""
        return None if self.others is None else self.others.prompts

    def cond(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Condition:
        """See `Requests`: the labels alone, which also metrics may look at."""
        if self.others is not None:
            return self.others.cond(indices, device)
        labels = self.given.labels
        return {} if labels is None else {"label": torch.from_numpy(labels[self._places(indices)]).to(device)}

    def model_cond(
        self, denoiser: Denoiser, indices: Sequence[int], seed: int, device: torch.device | str
    ) -> Condition:
        """See `Requests`."""
        x = self.modality.to_model(self.targets(indices).to(device))
        draws = conditioning_draws(seed, indices, x.shape[1:], device)
        asked = self.others
        others = self.cond(indices, device) if asked is None else asked.model_cond(denoiser, indices, seed, device)
        return {**others, **self._hints(indices, device), **denoiser.derive(x, draws, sampling=True)}

    def targets(self, indices: Sequence[int]) -> Tensor:
        """See `Requests`: the samples of which the columns are computed."""
        return torch.from_numpy(self.given.samples[self._places(indices)]).movedim(-1, 1)

    def record(self) -> dict[str, Any]:
        """See `Requests`: of which split of which data the columns are, and the labels where none were asked for."""
        derived = {"split": self.given.split, "sha256": self.given.digest}
        return {"derived": derived} if self.others is None else {**self.others.record(), "derived": derived}

    def _hints(self, indices: Sequence[int], device: torch.device | str) -> dict[str, Tensor]:
        if self.given.hints is None:
            return {}
        return {HINT: from_file(torch.from_numpy(self.given.hints[self._places(indices)]).movedim(-1, 1).to(device))}

    def _places(self, indices: Sequence[int]) -> np.ndarray:
        return np.asarray(indices) % len(self.given.samples)
