"""Samples that are restored: what is measured of each, and by which method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from langevin.diffusion.denoiser import Denoise
from langevin.diffusion.draws import SampleDraws
from langevin.modalities.modality import Modality
from langevin.restoration.operators.operator import Operator
from langevin.restoration.restoration import Measurement, Restoration
from langevin.restoration.walk import Walk
from langevin.samplers.given import Given

MEASURING, RESTORING = 2**61, 3 * 2**61
"""Added to the seed of samples for the noise of their measurements, and for the random numbers of the method."""


Decode = Callable[[Tensor], Tensor]


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
    """

    method: Restoration
    operator: Operator
    noise: float
    given: Given
    are_measured: bool
    shape: tuple[int, ...]
    modality: Modality
    settings: Mapping[str, Any]

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
        self, denoise: Denoise, y: Tensor, times: Tensor, indices: Sequence[int], seed: int, decode: Decode
    ) -> tuple[Denoise, Walk | None, Measurement]:
        """What a sampler is to sample from, its walk, and the measurement.

        Args:
            denoise: the model, guided or not.
            y: what `measured` gave.
            times: those of the sampler.
            indices: of the samples.
            seed: of the samples.
            decode: see `Measurement`.
        """
        draws = SampleDraws((seed + RESTORING) % 2**64, indices, self.shape, y.device)
        measurement = Measurement(y, self.operator, self.noise, self.shape, decode)
        return *self.method(denoise, measurement, times, draws), measurement

    def finished(self, x: Tensor, measurement: Measurement) -> Tensor:
        """The samples x (B, C, *size) in the end: of exact measurements, projected onto what agrees with them."""
        return measurement.projected(x) if self.method.is_exact and self.noise == 0 else x

    def inconsistency(self, made: Tensor, y: Tensor) -> Tensor:
        """How far stored samples (B, C, *size) are off their measurements, root mean squares (B,) in model units."""
        gap = self.operator(self.modality.to_model(made.to(y.device))) - y
        return gap.square().flatten(1).mean(1).sqrt()

    def record(self) -> dict[str, Any]:
        """How they are restored, as plain values for a protocol."""
        split = {} if self.given.split is None else {"split": self.given.split}
        kind = "images" if self.are_measured else "originals"
        return {"restored": {**self.settings, "noise": self.noise, kind: {**split, "sha256": self.given.digest}}}

    def _given(self, indices: Sequence[int]) -> Tensor:
        return torch.from_numpy(self.given.samples[np.asarray(indices)]).movedim(-1, 1)


def shown(y: Tensor, shape: tuple[int, ...], modality: Modality) -> Tensor:
    """Measurements (B, C', *size') as stored samples of a shape (C, *size), to be looked at: each number a block."""
    grown = functional.interpolate(y, shape[1:], mode="nearest") if y.shape[2:] != shape[1:] else y
    return modality.from_model(grown.expand(-1, shape[0], *shape[1:]))
