"""Numbers and networks that the tests of the diffusion's mathematics share."""

import numpy as np
import torch
from torch import Tensor, nn


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0, dtype=torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def wide(coefficient: Tensor) -> Tensor:
    """A number per image, ready to multiply the images."""
    return coefficient.reshape(-1, 1, 1, 1)


def linear_betas(num_steps: int, start: float = 1e-4, end: float = 0.02) -> np.ndarray:
    """DDPM's betas at T = 1000, scaled for another T."""
    scale = 1000 / num_steps
    return scale * start + (scale * end - scale * start) * np.arange(num_steps) / max(num_steps - 1, 1)


def alpha_bar(betas: np.ndarray) -> np.ndarray:
    """The products of 1 - beta for t = 0..T, with more digits than float64 on the way."""
    return np.concatenate([[1.0], np.cumprod(1 - betas.astype(np.longdouble))]).astype(np.float64)


class TinyNetwork(nn.Module):
    """A random function of all its inputs that keeps the type it is given; `extra` more channels."""

    def __init__(self, channels: int = 2, extra: int = 0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(channels + extra, channels, 3, 3, generator=generator).double() / 4)

    def forward(self, x, c_noise, cond=None):
        assert c_noise.shape == (len(x),)
        time = torch.sin(c_noise / 100).reshape(-1, 1, 1, 1)
        return torch.tanh(nn.functional.conv2d(x, self.weight.to(x), padding=1) + time) + 0.1 * time
