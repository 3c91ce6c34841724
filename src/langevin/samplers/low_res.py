"""Requests of a super-resolution model: one given small image each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from langevin.conditions.low_res import IMAGE, LEVEL, LowRes
from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.draws import conditioning_draws
from langevin.modalities.modality import Modality
from langevin.samplers.given import OfImages, sha256_of
from langevin.samplers.requests import Beside, Requests


class LowResRequests(OfImages):
    """Sample i has the i-th of some small images, with noise of (seed, i) unless they have theirs.

    Args:
        requests: the others, such as labels.
        images: the small images as stored, (N, size, size, C); of at most N samples.
        labels: of the images, int64 (N,), for metrics where the model has no use for them; None: none.
        level: of the noise that is added to them, as `LowRes.noised` takes it, or that they have.
        noisy: the images with noise of that level in them already, (N, C, size, size) in model units; None: it is
            added.
        condition: the model's.
        modality: what the images are.
    """

    def __init__(
        self,
        requests: Requests,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64] | None,
        level: float,
        condition: LowRes,
        modality: Modality,
        noisy: NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__(requests, images, modality)
        self.labels = labels
        self.level = level
        self.condition = condition
        self.noisy = noisy

    def cond(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Condition:
        """See `Requests`: the labels alone, which also metrics may look at."""
        own = {} if self.labels is None else {"label": torch.from_numpy(self.labels[np.asarray(indices)]).to(device)}
        return {**own, **super().cond(indices, device)}

    def model_cond(
        self, denoiser: Denoiser, indices: Sequence[int], seed: int, device: torch.device | str
    ) -> Condition:
        """See `Requests`."""
        cond = self.requests.model_cond(denoiser, indices, seed, device)
        level = torch.full((len(indices),), self.level, device=device)
        if self.noisy is not None:
            return {**cond, IMAGE: torch.from_numpy(self.noisy[np.asarray(indices)]).to(device), LEVEL: level}
        small = self.modality.to_model(self.stored(indices).to(device))
        draws = conditioning_draws(seed, indices, small.shape[1:], device)
        return {**cond, **self.condition.noised(small, level, draws)}

    def beside(self, indices: Sequence[int]) -> Beside:
        """See `Requests`: the small images."""
        return Beside({"low-res": self.stored(indices)}, {})

    def record(self) -> dict[str, Any]:
        """See `Requests`: with the small images' digest, the level of their noise, and whether it was left in them."""
        given = {"images": self.digest, "noise_level": self.level}
        if self.noisy is not None:
            given |= {"images": sha256_of(self.noisy), "truncated": True}
        return {**self.requests.record(), "low_res": given}
