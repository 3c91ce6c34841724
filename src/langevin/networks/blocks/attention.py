"""Self-attention over the pixels of a feature map."""

from torch import Tensor, nn
from torch.nn import functional

from langevin.networks.blocks.block import NORM_EPSILON, Block, join, normalization
from langevin.networks.initialization import zero


class SelfAttention(Block):
    """Every pixel attends to every other, behind GroupNorm, added to its input (DDPM, appendix B).

    Starts as the identity, but for the rescaling: the last projection is zero. The embedding is not used.

    Args:
        channels: C, a multiple of 32.
        heads: number of heads, a divisor of C; DDPM has 1.
        norm_epsilon: see `normalization`.
        skip_rescale: whether the sum is divided by the square root of 2.
    """

    def __init__(
        self, channels: int, heads: int, norm_epsilon: float = NORM_EPSILON, skip_rescale: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.skip_rescale = skip_rescale
        self.norm = normalization(channels, norm_epsilon)
        # One product for query, key and value, each filled as the C x C matrix it is.
        self.qkv = nn.Linear(channels, 3 * channels)
        for weight in self.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.qkv.bias)
        self.project = zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map features (B, C, H, W) to features of the same shape."""
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = self.qkv(pixels).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        pixels = self.project(attended.transpose(1, 2).flatten(2))
        return join(x, pixels.transpose(1, 2).unflatten(2, x.shape[2:]), self.skip_rescale)


def number_of_heads(channels: int, heads: int | None, head_channels: int | None) -> int:
    """Into how many heads an attention of `channels` channels is split.

    Args:
        channels: C.
        heads: their number, or None.
        head_channels: the width of each, or None. With both None there is a single head.
    """
    return heads or channels // (head_channels or channels)
