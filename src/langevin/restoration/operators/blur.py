"""Images out of focus."""

import functools
import math
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt
from numpy.typing import NDArray
from torch import Tensor

from langevin.restoration.operators.operator import DiagonalOperator, sides

SMALLEST = 0.01
"""The frequencies of which a blur would leave a smaller part than this, it removes wholly.

To restore them would enlarge the error of a measurement as many times as this is small: rounding to uint8 alone would
become half of a level / `SMALLEST`. The blurred image changes by no more than `SMALLEST` of what it held there.
"""
REACH = 8
"""How many standard deviations of the Gaussian are summed, on either side."""


class Blur(DiagonalOperator):
    """A Gaussian blur, channel by channel, around the edges: what leaves on one side comes in on the other.

    The kernel is a sampled Gaussian; frequencies that it almost removes are removed wholly, see `SMALLEST`, so that
    its pseudo-inverse is exact.

    Args:
        sigma: the Gaussian's standard deviation in pixels.
    """

    def __init__(self, sigma: Annotated[float, Gt(0)] = 2.0) -> None:
        self.sigma = sigma

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `Operator`."""
        sides(shape)
        return shape

    def __call__(self, x: Tensor) -> Tensor:
        """See `Operator`."""
        shape = tuple(x.shape[1:])
        return self.from_basis(self.to_basis(x, shape) * self._gains(x, shape), shape)

    def adjoint(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `Operator`: the kernel is symmetric."""
        return self(y)

    def eigenvalues(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `DiagonalOperator`."""
        return self._gains(y, shape).square()

    def to_basis(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `DiagonalOperator`: (B, C, H, W // 2 + 1), complex."""
        return torch.fft.rfft2(y)

    def from_basis(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `DiagonalOperator`."""
        return torch.fft.irfft2(y, s=shape[-2:])

    def _gains(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        return _gains(shape[-2], shape[-1], self.sigma, like.dtype, like.device)


@functools.lru_cache
@torch.inference_mode(False)  # what is kept may be used with and without gradients
def _gains(height: int, width: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What the blur multiplies each frequency of `rfft2` with: (H, W // 2 + 1)."""
    gains = _spectrum(height, sigma)[:, None] * _spectrum(width, sigma)[: width // 2 + 1]
    return torch.from_numpy(np.where(gains < SMALLEST, 0, gains)).to(device, dtype)


def _spectrum(size: int, sigma: float) -> NDArray[np.float64]:
    """The discrete Fourier transform, which is real, of a Gaussian around a circle of so many pixels: (size,)."""
    offsets = np.arange(-math.ceil(REACH * sigma), math.ceil(REACH * sigma) + 1)
    kernel = np.exp(-((offsets / sigma) ** 2) / 2)
    around = np.bincount(offsets % size, kernel / kernel.sum(), minlength=size)
    return np.fft.fft(around).real
