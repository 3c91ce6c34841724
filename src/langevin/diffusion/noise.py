"""Noise that belongs to an image, not to a batch."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

NoiseSource = Callable[[], Tensor]


class ImageNoise:
    """Standard normal noise in which image i depends on (seed, i) alone.

    Each image has its own generator on the CPU, so that neither the batch size nor the number of processes nor the
    kind of device changes what an image becomes.

    Args:
        seed: at least 0 and below 2^64, as is every index.
        indices: the image of each row.
        shape: the shape (C, H, W) of an image.
        device: where the noise goes.
    """

    def __init__(
        self, seed: int, indices: Sequence[int], shape: tuple[int, ...], device: torch.device | str = "cpu"
    ) -> None:
        # Philox is keyed by both numbers, so that no two (seed, index) share a stream; torch's own CPU generator would
        # look at the low 32 bits of a seed alone.
        keys = [np.array([seed, index], np.uint64) for index in indices]
        self._generators = [np.random.Generator(np.random.Philox(key=key)) for key in keys]
        self._shape = shape
        self._device = device

    def __call__(self) -> Tensor:
        """The next noise of every image: float32 (B, C, H, W)."""
        rows = [generator.standard_normal(self._shape, dtype=np.float32) for generator in self._generators]
        return torch.from_numpy(np.stack(rows)).to(self._device, non_blocking=True)
