"""The interface of every perceptual distance."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from langevin.config.types import path_of
from langevin.digest import digest_of
from langevin.spec import DataSpec

EPSILON = 1e-8
"""Keeps the length of a vector of activations, and its gradient, away from a division by zero."""


class PerceptualDistance(nn.Module, ABC):
    """How different two images are, by the activations of a frozen network.

    It is never trained: its weights need no gradient, and it stays in evaluation mode. What trains with it as a loss
    keeps it out of its own modules, so that checkpoints and the optimizer do not hold its weights.
    """

    @abstractmethod
    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """The distances (B,), at least 0, and 0 of equal images; differentiable by x alone.

        Args:
            x: images (B, C, H, W) as models take them, in [-1, 1].
            target: the same.
        """

    @abstractmethod
    def check(self, spec: DataSpec) -> None:
        """Check that it can compare samples of some spec.

        Raises:
            OptionError: when it cannot.
        """

    def record(self) -> dict[str, Any]:
        """What of it decides values, as entries of a protocol: plain values."""
        return {"perceptual": {"class": path_of(type(self)), "weights": digest_of(self)}}

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)


def distance_of_levels(
    activations: Sequence[Tensor], expected: Sequence[Tensor], weights: Sequence[Tensor] | None = None
) -> Tensor:
    """The sum over levels of the squared distances of unit vectors of activations, each a mean over the positions.

    Zhang et al. 2018 (arXiv 1801.03924), equation 1. It is computed in float32 or better.

    Args:
        activations: of x: (B, C, h, w) of each level, whose sizes may differ.
        expected: of the target, the same.
        weights: (C,) of each level: how much each channel counts; None: 1.

    Returns:
        (B,), without weights in [0, 4 * number of levels].
    """
    distances = []
    for level, (a, b) in enumerate(zip(activations, expected, strict=True)):
        squares = (_unit(a) - _unit(b)).square()
        if weights is not None:
            squares = squares * weights[level][:, None, None]
        distances.append(squares.sum(1).mean((1, 2)))
    return torch.stack(distances).sum(0)


def _unit(activations: Tensor) -> Tensor:
    wide = activations.to(torch.promote_types(activations.dtype, torch.float32))
    # Within the root, where at zero its gradient would not be finite.
    return wide / (wide.square().sum(1, keepdim=True) + EPSILON).sqrt()
