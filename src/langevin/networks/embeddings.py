"""The noise level as a vector."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from langevin.networks.initialization import fan_average


def sinusoidal_embedding(positions: Tensor, dim: int) -> Tensor:
    """Embed numbers as sines and cosines of `dim / 2` frequencies, from 1 down to 1/10000 in geometric steps.

    This is DDPM's embedding (Ho et al. 2020, appendix B; the division by `dim / 2 - 1` is that of their code).

    Args:
        positions: (B,), any real number.
        dim: even, at least 4.

    Returns:
        (B, dim) float32, all sines first, then all cosines. It is computed in float32 whatever the type of
        `positions` and of the network: in bfloat16 the times 999 and 1000 are the same number.
    """
    assert dim % 2 == 0, dim
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=positions.device)
    frequencies = torch.exp(-math.log(10000) * index / (half - 1))
    angles = positions.float()[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=1)


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding, then two linear layers with SiLU between (DDPM, appendix B).

    Args:
        channels: size of the sinusoidal embedding, even, at least 4.
        dim: size of the result.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear1 = fan_average(nn.Linear(channels, dim))
        self.linear2 = fan_average(nn.Linear(dim, dim))

    def forward(self, c_noise: Tensor) -> Tensor:
        """Map noise levels (B,) to embeddings (B, dim)."""
        waves = sinusoidal_embedding(c_noise, self.channels).to(self.linear1.weight.dtype)
        return self.linear2(functional.silu(self.linear1(waves)))
