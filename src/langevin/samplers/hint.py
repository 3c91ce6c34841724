"""Requests of a model that follows hints: one hint each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin.conditions.hint import COLUMN, SCALE, Hint, grey
from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.images import from_file, to_file
from langevin.modalities.modality import Modality
from langevin.samplers.given import OfImages
from langevin.samplers.requests import Beside, Requests


class HintRequests(OfImages):
    """Other requests, and with sample i the i-th hint.

    Args:
        requests: the others, such as labels.
        images: as stored, of at most N samples: hints (N, H, W, 1 or 3), or images (N, H, W, C) of which they are
            computed.
        condition: the model's.
        modality: what the images are.
        computed: whether it is to compute the hints of the images; else the images are hints.
        scale: a factor on the effect of the hints, for `Context.scale`.
    """

    def __init__(
        self,
        requests: Requests,
        images: NDArray[np.uint8],
        condition: Hint,
        modality: Modality,
        computed: bool,
        scale: float = 1.0,
    ) -> None:
        super().__init__(requests, images, modality)
        self.condition = condition
        self.computed = computed
        self.scale = scale

    def model_cond(
        self, denoiser: Denoiser, indices: Sequence[int], seed: int, device: torch.device | str
    ) -> Condition:
        """See `Requests`."""
        cond = {**self.requests.model_cond(denoiser, indices, seed, device), COLUMN: self.hints(indices, device)}
        return cond if self.scale == 1 else {**cond, SCALE: torch.full((len(indices),), self.scale, device=device)}

    def hints(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Some of the hints, (B, C, H, W) in [0, 1]."""
        stored, channels = self.stored(indices).to(device), self.condition.concat_channels
        if self.computed:
            return self.condition.hint(self.modality.to_model(stored))
        levels = from_file(stored)
        return (grey(levels) if channels == 1 else levels).expand(-1, channels, -1, -1)

    def beside(self, indices: Sequence[int]) -> Beside:
        """See `Requests`: the hints, and the images of which they are computed."""
        return Beside(
            {"hint": to_file(self.hints(indices))},
            {"original": self.stored(indices)} if self.computed else {},
        )

    def record(self) -> dict[str, Any]:
        """See `Requests`: with the digest of the hints, or of the images of which they are computed, and the scale."""
        hint = {"images" if self.computed else "hints": self.digest, "scale": self.scale}
        return {**self.requests.record(), "hint": hint}
