"""The noise level as a vector."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from langevin.networks.initialization import fan_average


def sinusoidal_embedding(positions: Tensor, dim: int, endpoint: bool = True, cosine_first: bool = False) -> Tensor:
    """Embed numbers as sines and cosines of `dim / 2` frequencies, falling from 1 in geometric steps.

    The defaults are DDPM's embedding (Ho et al. 2020, appendix B; that the lowest frequency is 1/10000 itself is from
    their code). OpenAI's networks (Nichol & Dhariwal 2021) leave that last one out and put the cosines first.

    Args:
        positions: (B,), any real number.
        dim: even, at least 4.
        endpoint: whether the frequencies, 10000^(-i / n), end with 1/10000: n = dim / 2 - 1; else n = dim / 2.
        cosine_first: all cosines, then all sines; else the other way round.

    Returns:
        (B, dim) float32. It is computed in float32 for any type of `positions` and of the network: in bfloat16 the
        times 999 and 1000 are the same number.
    """
    assert dim % 2 == 0, dim
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=positions.device)
    frequencies = torch.exp(-math.log(10000) * index / (half - endpoint))
    angles = positions.float()[:, None] * frequencies
    waves = (angles.cos(), angles.sin()) if cosine_first else (angles.sin(), angles.cos())
    return torch.cat(waves, dim=1)


class Sinusoidal(nn.Module):
    """Features of a noise level by `sinusoidal_embedding`.

    Args:
        channels: number of features, even, at least 4.
        endpoint: see `sinusoidal_embedding`.
        cosine_first: see `sinusoidal_embedding`.

    Attributes:
        channels: number of features.
    """

    def __init__(self, channels: int, endpoint: bool, cosine_first: bool) -> None:
        super().__init__()
        self.channels = channels
        self.endpoint = endpoint
        self.cosine_first = cosine_first

    def forward(self, c_noise: Tensor) -> Tensor:
        """Map noise levels (B,) to features (B, channels), float32."""
        return sinusoidal_embedding(c_noise, self.channels, self.endpoint, self.cosine_first)


class Fourier(nn.Module):
    """Sines, then cosines, of a noise level at random frequencies that stay as they were drawn.

    NCSN++'s features (Song et al. 2021, Score-SDE, appendix C), after Tancik et al. 2020: sin(2 pi f c_noise), f normal
    with standard deviation 16. They are for noise levels of the size of a logarithm; of a step's number they are noise.

    Args:
        frequencies: number of frequencies, half the number of features.

    Attributes:
        channels: number of features.
    """

    SCALE = 16.0
    frequencies: Tensor

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        self.channels = 2 * frequencies
        # On the CPU: on the device "meta", where configs are checked, this imports torch's compiler.
        self.register_buffer("frequencies", self.SCALE * torch.randn(frequencies, device="cpu"))

    def forward(self, c_noise: Tensor) -> Tensor:
        """Map noise levels (B,) to features (B, channels), float32."""
        angles = c_noise.float()[:, None] * (2 * math.pi * self.frequencies.float())
        return torch.cat((angles.sin(), angles.cos()), dim=1)


FEATURES: dict[str, Callable[[int], Sinusoidal | Fourier]] = {
    "sinusoidal": lambda channels: Sinusoidal(channels, endpoint=True, cosine_first=False),
    "cosine_first": lambda channels: Sinusoidal(channels, endpoint=False, cosine_first=True),
    "fourier": Fourier,
}
"""The features of a noise level by their name in a config, called with the width of the network's first level."""


class TimeEmbedding(nn.Module):
    """Features of the noise level, then two linear layers with SiLU between (DDPM, appendix B).

    Args:
        channels: width of the network's first level, even, at least 4.
        dim: size of the result.
        features: a name in `FEATURES`.
    """

    def __init__(self, channels: int, dim: int, features: str = "sinusoidal") -> None:
        super().__init__()
        self.features = FEATURES[features](channels)
        self.linear1 = fan_average(nn.Linear(self.features.channels, dim))
        self.linear2 = fan_average(nn.Linear(dim, dim))

    def forward(self, c_noise: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map noise levels to embeddings.

        Args:
            c_noise: (B,).
            condition: (B, number of features), added to the features; None for nothing.

        Returns:
            (B, dim).
        """
        features = self.features(c_noise).to(self.linear1.weight.dtype)
        if condition is not None:
            features = features + condition
        return self.linear2(functional.silu(self.linear1(features)))
