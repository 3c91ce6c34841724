"""Self-attention over the pixels of a feature map, and over the condition's tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from langevin.networks.blocks.block import NORM_EPSILON, Block, join, normalization
from langevin.networks.initialization import zero


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


def projections(in_channels: int, number: int, channels: int) -> nn.Linear:
    """`number` linear maps to `channels` channels in one product, each initialized as a matrix of its own."""
    layer = nn.Linear(in_channels, number * channels)
    for weight in layer.weight.chunk(number):
        nn.init.xavier_uniform_(weight)
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
