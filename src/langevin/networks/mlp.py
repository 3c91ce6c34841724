"""A residual multilayer perceptron, for vectors."""

from collections.abc import Callable, Mapping
from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn import functional

from langevin.conditions.condition import Condition
from langevin.errors import OptionError
from langevin.networks.embeddings import TimeEmbedding
from langevin.networks.initialization import fan_average, zero
from langevin.networks.network import Network

STEEPNESS = 3.0
"""The standard deviation of the first features, without their biases, of entries of unit variance."""


class MLP(Network):
    """Residual blocks of two linear layers, each given the noise level and the condition: for vectors (B, D).

    It starts as the U-Nets do: by DDPM's scheme, with the last layer of every block and of the network at zero. Only
    the first layer starts larger, with biases: of few entries, DDPM's scheme makes features so small that SiLU is all
    but linear in them, and sharp densities are learned slowly. There is no normalization: it would hide the length of
    a vector of few entries.

    Args:
        in_channels: D, the entries of a vector.
        out_channels: entries of the output: more than `in_channels` where a variance is learned.
        condition: builds the condition's embedding, called with `dim=`; None for an unconditional network.
        width: size of a vector's features.
        depth: number of blocks.
        time_channels: size of the embedding of the noise level, even.
        dropout: probability in [0, 1) before the last layer of a block.

    Raises:
        OptionError: when `time_channels` is odd.
    """

    axes = 0

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        condition: Callable[..., Condition] | None,
        width: Annotated[int, Ge(1)],
        depth: Annotated[int, Ge(1)],
        time_channels: Annotated[int, Ge(4)],
        dropout: Annotated[float, Ge(0), Lt(1)],
    ) -> None:
        super().__init__()
        if time_channels % 2:
            text = f"is {time_channels}; allowed: an even number, half sines and half cosines"
            raise OptionError("time_channels", text)
        self.time = TimeEmbedding(time_channels, time_channels)
        self.condition = None if condition is None else condition(dim=time_channels)
        self.first = nn.Linear(in_channels + self.concat_channels, width)
        nn.init.normal_(self.first.weight, std=STEEPNESS * self.first.in_features**-0.5)
        nn.init.normal_(self.first.bias)
        self.blocks = nn.ModuleList(MLPBlock(width, time_channels, dropout) for _ in range(depth))
        self.last = zero(nn.Linear(width, out_channels))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """Evaluate the network; see `Network.forward`."""
        x, context = self.conditioned(x, cond)
        embedding = self.time(c_noise)
        if context.vector is not None:
            embedding = embedding + context.vector
        embedding = functional.silu(embedding)
        x = self.first(x)
        for block in self.blocks:
            x = block(x, embedding)
        return self.last(functional.silu(x))


class MLPBlock(nn.Module):
    """Two linear layers behind SiLU, the embedding added between them, beside a shortcut.

    Args:
        width: size of the features.
        embedding_channels: size of the embedding.
        dropout: probability in [0, 1) before the last layer.
    """

    def __init__(self, width: int, embedding_channels: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = fan_average(nn.Linear(width, width))
        self.embed = fan_average(nn.Linear(embedding_channels, width))
        self.dropout = nn.Dropout(dropout)
        self.linear2 = zero(nn.Linear(width, width))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map features (B, width) under an activated embedding (B, D) to features of the same shape."""
        h = self.linear1(functional.silu(x)) + self.embed(embedding)
        return x + self.linear2(self.dropout(functional.silu(h)))
