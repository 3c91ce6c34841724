"""Requests of an inpainting model: the known part of one given image each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin.conditions.inpaint import COLUMN, known_part
from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.modalities.modality import Modality
from langevin.samplers.given import OfImages
from langevin.samplers.requests import Beside, Requests


class InpaintRequests(OfImages):
    """Other requests, and with sample i the known part of the i-th of some images.

    Args:
        requests: the others, such as labels.
        images: as stored, (N, H, W, C); of at most N samples.
        unknown: bool (H, W), true where pixels are to be made anew.
        mask: what the mask is, as plain values for a protocol.
        modality: what the images are.
    """

    def __init__(
        self,
        requests: Requests,
        images: NDArray[np.uint8],
        unknown: Tensor,
        mask: Mapping[str, Any],
        modality: Modality,
    ) -> None:
        super().__init__(requests, images, modality)
        self.unknown = unknown
        self.mask = mask

    def model_cond(
        self, denoiser: Denoiser, indices: Sequence[int], seed: int, device: torch.device | str
    ) -> Condition:
        """See `Requests`."""
        x = self.modality.to_model(self.stored(indices).to(device))
        others = self.requests.model_cond(denoiser, indices, seed, device)
        return {**others, COLUMN: known_part(x, ~self.unknown[None, None].to(device))}

    def beside(self, indices: Sequence[int]) -> Beside:
        """See `Requests`: the images with grey where they are unknown, and the images."""
        known = torch.where(self.unknown, 0, self.modality.to_model(self.stored(indices)))
        return Beside({"known": self.modality.from_model(known)}, {"original": self.stored(indices)})

    def record(self) -> dict[str, Any]:
        """See `Requests`: with the digests of the images and of the mask."""
        return {**self.requests.record(), "inpaint": {"images": self.digest, "mask": dict(self.mask)}}
