"""The noise level: how much signal and how much noise an image holds."""

from typing import NamedTuple

import torch
from torch import Tensor


class Level(NamedTuple):
    """The pair (alpha, sigma) of ``x_t = alpha * x + sigma * eps``.

    Both are float64 tensors of one shape on the CPU: `()` for one level, `(B,)` for one per image.
    """

    alpha: Tensor
    sigma: Tensor

    @property
    def ratio(self) -> Tensor:
        """The noise-to-signal ratio ``sigma / alpha`` (infinite where alpha is 0)."""
        return self.sigma / self.alpha

    @property
    def snr(self) -> Tensor:
        """The signal-to-noise ratio ``alpha^2 / sigma^2`` (infinite where sigma is 0)."""
        return (self.alpha / self.sigma).square()

    @property
    def log_snr(self) -> Tensor:
        """``log(alpha^2 / sigma^2)``."""
        return 2 * (torch.log(self.alpha) - torch.log(self.sigma))


def broadcast_to(coefficient: Tensor, x: Tensor) -> Tensor:
    """Carry a coefficient of shape `()`, `(B,)` or that of `x` (B, ...) to its device and type, ready to multiply it.

    Coefficients are computed in float64 on the CPU and only the results are copied, so every device gets the
    same ones, devices without float64 work, and no step waits for the device.
    """
    coefficient = coefficient.to(device=x.device, dtype=x.dtype, non_blocking=True)
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim))


def combine(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """``a * x + b * y`` with coefficients `a`, `b` of shape `()` or `(B,)` and images `x`, `y` of shape (B, ...)."""
    return broadcast_to(a, x) * x + broadcast_to(b, y) * y
