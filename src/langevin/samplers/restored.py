"""Samples that are restored: what is measured of each, and by which method."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langevin.codecs.codec import Codec
from langevin.diffusion.denoiser import Denoise
from langevin.diffusion.draws import SampleDraws
from langevin.modalities.modality import Modality
from langevin.restoration.operators.operator import Operator
from langevin.restoration.restoration import Measurement, Restoration
from langevin.restoration.walk import Walk
from langevin.samplers.given import Given
from langevin.samplers.requests import Beside

MEASURING, RESTORING = 2**61, 3 * 2**61
"""Added to the seed of samples for the noise of their measurements, and for the random numbers of the method."""


@dataclass(frozen=True)
class Restored:
    """What samples are restored from, and how.

    Attributes:
        method: how.
        operator: what is measured of a sample.
        noise: the standard deviation of a measurement's noise, in the model's units; 0: none.
        given: the measurements, or originals to be measured.
        are_measured: which of both.
        shape: (C, *size) of a sample.
        modality: what the samples are.
        settings: the method and the operators, as plain values for a protocol.
        of_latents: what is measured of latents in place of samples; None: of samples, whatever is diffused.
    """

    method: Restoration
    operator: Operator
    noise: float
    given: Given
    are_measured: bool
    shape: tuple[int, ...]
    modality: Modality
    settings: Mapping[str, Any]
    of_latents: Operator | None = None

    def measured(self, indices: Sequence[int], seed: int, device: torch.device | str) -> Tensor:
        """The measurements (B, *measured) of some samples, in the model's units; of originals with fresh noise."""
        x = self.modality.to_model(self._given(indices).to(device))
        if self.are_measured:  # what the operator cannot have given, such as the unknown pixels of a mask, says nothing
            return self.operator(self.operator.pseudo_inverse(x, self.shape))
        y = self.operator(x)
        if self.noise == 0:
            return y
        noise = SampleDraws((seed + MEASURING) % 2**64, indices, y.shape[1:], device).normal()
        # A mask's unknown pixels are not measured, and have no noise either.
        return y + self.noise * self.operator(self.operator.pseudo_inverse(noise, self.shape))

    def targets(self, indices: Sequence[int]) -> Tensor | None:
        """What the samples (B, C, *size) should be, as stored, where that is known."""
        return None if self.are_measured else self._given(indices)

    def start(
        self, denoise: Denoise, y: Tensor, times: Tensor, indices: Sequence[int], seed: int, codec: Codec
    ) -> tuple[Denoise, Walk | None]:
        """What a sampler is to sample from, and its walk.

        Args:
            denoise: the model, guided or not.
            y: what `measured` gave.
            times: those of the sampler.
            indices: of the samples.
            seed: of the samples.
            codec: between the samples and what is diffused.
        """
        draws = SampleDraws((seed + RESTORING) % 2**64, indices, self.shape, y.device)
        measurement = Measurement(y, self.operator, self.noise, self.shape, codec.decode)
        if self.of_latents is not None:  # of a mask alone, whose measurements are samples with grey in them
            z = codec.encode(y, draws)
            shape = tuple(z.shape[1:])
            measurement = Measurement(self.of_latents(z), self.of_latents, self.noise, shape, lambda latent: latent)
        return self.method(denoise, measurement, times, draws)

    def finished(self, x: Tensor, y: Tensor) -> Tensor:
        """The samples x (B, C, *size) in the end: of exact measurements y, projected onto what agrees with them."""
        is_exact = self.method.is_exact and self.noise == 0
        return self.operator.projected(x, y) if is_exact else x

    def inconsistency(self, made: Tensor, y: Tensor) -> Tensor:
        """How far stored samples (B, C, *size) are off their measurements, root mean squares (B,) in model units.

        Numbers that are 0 whatever the sample, such as the unknown pixels of a mask, do not count.
        """
        gap = self.operator(self.modality.to_model(made.to(y.device))) - y
        counts = (
            self.operator(torch.linspace(1, 2, math.prod(self.shape), device=y.device).reshape(1, *self.shape)) != 0
        )
        return (gap.square().flatten(1).sum(1) / counts.sum().clamp(min=1)).sqrt()

    def beside(self, indices: Sequence[int], seed: int) -> Beside:
        """The measurements of some samples of a seed, and the originals where these are known, to be looked at."""
        targets = self.targets(indices)
        measured = {"measured": self.modality.from_model(self.measured(indices, seed, "cpu"))}
        return Beside(measured, {} if targets is None else {"original": targets})

    def record(self) -> dict[str, Any]:
        """How they are restored, as plain values for a protocol."""
        split = {} if self.given.split is None else {"split": self.given.split}
        kind = "images" if self.are_measured else "originals"
        return {"restored": {**self.settings, "noise": self.noise, kind: {**split, "sha256": self.given.digest}}}

    def _given(self, indices: Sequence[int]) -> Tensor:
        return torch.from_numpy(self.given.samples[np.asarray(indices)]).movedim(-1, 1)
