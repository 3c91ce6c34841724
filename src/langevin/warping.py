"""Images under affine maps of the plane, resampled by a wavelet, so that they neither blur nor alias."""

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466),
    *(0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578),
    *(0.0017677118642428036, -0.007800708325034148),
)
"""The scaling filter of the symlet with six vanishing moments. Source: Daubechies 1992, table 6.3."""
BEFORE = 5
"""How many of its taps come before the one that lies on a pixel."""


def warp(x: Tensor, inverse: Tensor) -> Tensor:
    """Images under affine maps.

    They are reflected at their borders, enlarged to twice the side by a wavelet, sampled there bilinearly, and brought
    back by the same wavelet. Its two steps are each other's transpose and inverse, so that an image under the identity
    stays as it is, but for rounding. The reflections reach as far as the image does; beyond them there is 0.

    Source: EDM (Karras et al. 2022, arXiv 2206.00364), appendix F.2, after "Training generative adversarial networks
    with limited data" (Karras et al. 2020, arXiv 2006.06676), appendix B.

    Args:
        x: images (B, C, H, W) of floating point; computed in float32.
        inverse: of each, (B, 2, 3): takes a place (x, y, 1) of the result to where it comes from, both in pixels from
            the image's centre, x to the right and y downwards.
    """
    height, width = x.shape[2:]
    with torch.autocast(x.device.type, enabled=False):
        enlarged = _enlarging(height, x.device) @ x.float() @ _enlarging(width, x.device).T
        row, column = _places(height, x.device)[:, None], _places(width, x.device)
        places = [(line[:, 0] * column + line[:, 1] * row + line[:, 2]) for line in _lines(inverse)]
        # `grid_sample` counts from -1, the first enlarged pixel, reflections included, to 1, the last.
        grid = torch.stack([_counted(place, side) for place, side in zip(places, (width, height), strict=True)], -1)
        sampled = functional.grid_sample(enlarged, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        return (_reducing(height, x.device) @ sampled @ _reducing(width, x.device).T).to(x.dtype)


def _lines(inverse: Tensor) -> tuple[Tensor, ...]:
    return inverse.float()[..., None, None].unbind(1)


def _counted(place: Tensor, side: int) -> Tensor:
    """Places in pixels from the centre, of the 6 side - 4 enlarged ones in [-1, 1]."""
    return (4 * place - 1) / (6 * side - 5)


@functools.lru_cache
def _places(side: int, device: torch.device) -> Tensor:
    """Where the enlarged pixels lie that bear on the result: in its pixels from the centre."""
    return (torch.arange(2 * side + 2 * BEFORE, device=device) - BEFORE - side + 1) / 2


@functools.lru_cache
def _enlarging(side: int, device: torch.device) -> Tensor:
    """The matrix (6 side - 4, side) that reflects a line of pixels at both ends and enlarges it."""
    whole = 3 * side - 2
    source = side - 1 - abs(side - 1 - abs(np.arange(whole) - side + 1))
    return _tensor(_wavelet(np.arange(2 * whole), whole) @ np.eye(side)[source], device)


@functools.lru_cache
def _reducing(side: int, device: torch.device) -> Tensor:
    """The matrix (side, 2 side + 10) that brings a line back, from those enlarged pixels that bear on it."""
    return _tensor(_wavelet(np.arange(-BEFORE, 2 * side + BEFORE), side).T, device)


def _wavelet(enlarged: NDArray[np.int64], number: int) -> NDArray[np.float64]:
    """What pixels 0 to `number` - 1, which lie at the even places, add to enlarged pixels: (enlarged, number)."""
    tap = enlarged[:, None] - 2 * np.arange(number) + BEFORE
    return np.where((tap >= 0) & (tap < len(SYM6)), np.take(SYM6, tap, mode="clip"), 0.0)


def _tensor(matrix: NDArray[np.float64], device: torch.device) -> Tensor:
    return torch.from_numpy(matrix).to(device, torch.float32)
