"""Attention: of the pixels of a feature map to each other and to the condition's tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from langevin.networks.blocks.block import NORM_EPSILON, Block, join, normalization
from langevin.networks.initialization import fan_average, zero


class SelfAttention(Block):
    """Every pixel attends to every other, behind GroupNorm, added to its input (DDPM, appendix B).

    Where there are tokens, it attends to these as well: their keys and values join the pixels', under one
    softmax (GLIDE; Nichol et al. 2021, arXiv 2112.10741; `encoder_kv` in their code). The embedding is not used.

    Starts as the identity, but for the rescaling: the last projection is zero.

    Args:
        channels: C, see `normalization`.
        heads: number of heads, a divisor of C; DDPM has 1.
        norm_epsilon: see `normalization`.
        skip_rescale: whether the sum is divided by the square root of 2.
        token_channels: D', of the tokens; None without any.
        norm_groups: see `normalization`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        norm_epsilon: float = NORM_EPSILON,
        skip_rescale: bool = False,
        token_channels: int | None = None,
        norm_groups: int | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.skip_rescale = skip_rescale
        self.norm = normalization(channels, norm_epsilon, norm_groups)
        self.qkv = projections(channels, 3, channels)
        self.kv = None if token_channels is None else projections(token_channels, 2, channels)
        self.project = zero(nn.Linear(channels, channels))

    def forward(
        self, x: Tensor, embedding: Tensor | None = None, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map features (B, C, H, W), given tokens (B, L, D') and their mask (B, L), to features of the same shape."""
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = self.qkv(pixels).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.kv is not None:
            assert tokens is not None
            token_key, token_value = self.kv(tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
            key, value = torch.cat((key, token_key), dim=2), torch.cat((value, token_value), dim=2)
        if mask is not None:  # the pixels are all attended to
            mask = functional.pad(mask, (pixels.shape[1], 0), value=True)[:, None, None]
        attended = functional.scaled_dot_product_attention(query, key, value, mask)
        pixels = self.project(attended.transpose(1, 2).flatten(2))
        return join(x, pixels.transpose(1, 2).unflatten(2, x.shape[2:]), self.skip_rescale)


class TokenAttention(nn.Module):
    """Multi-head attention of features to tokens, which may be these features themselves.

    A row of tokens that is masked whole counts as one without a mask, as in diffusers: there would be no mean of
    nothing.

    Args:
        width: size of the features.
        heads: number of heads, a divisor of `width`.
        token_channels: size of the tokens.
        bias: whether queries, keys and values have biases; the last projection has one.
    """

    def __init__(self, width: int, heads: int, token_channels: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = projections(width, 1, width, bias)
        self.kv = projections(token_channels, 2, width, bias)
        self.project = fan_average(nn.Linear(width, width))

    def forward(self, features: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map features (B, N, width) to features of the same shape.

        Args:
            features: give the queries.
            tokens: (B, L, token_channels), give keys and values.
            mask: which of the tokens are attended to, (B, L) bool; None: all.
        """
        query = self.query(features).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = self.kv(tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if mask is not None:
            mask = (mask | ~mask.any(dim=1, keepdim=True))[:, None, None]
        attended = functional.scaled_dot_product_attention(query, key, value, mask)
        return self.project(attended.transpose(1, 2).flatten(2))


def projections(in_channels: int, number: int, channels: int, bias: bool = True) -> nn.Linear:
    """`number` linear maps to `channels` channels in one product, each initialized as a matrix of its own."""
    layer = nn.Linear(in_channels, number * channels, bias)
    for weight in layer.weight.chunk(number):
        nn.init.xavier_uniform_(weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def number_of_heads(channels: int, heads: int | None, head_channels: int | None) -> int:
    """Into how many heads an attention of `channels` channels is split.

    Args:
        channels: C.
        heads: their number, or None.
        head_channels: the width of each, or None. With both None there is a single head.
    """
    return heads or channels // (head_channels or channels)
