"""The transformer over the pixels of a feature map that attends to the condition's tokens, of latent diffusion."""

from torch import Tensor, nn
from torch.nn import functional

from langevin.networks.blocks.attention import TokenAttention
from langevin.networks.blocks.block import Block, join, normalization
from langevin.networks.initialization import fan_average, zero

MLP_RATIO = 4


class SpatialTransformer(Block):
    """Transformer blocks on the pixels, between two linear layers, behind GroupNorm, added to its input.

    Starts as the identity, but for the rescaling: the last projection is zero. The embedding is not used.

    Source: latent diffusion (Rombach et al. 2022, arXiv 2112.10752, appendix E.2.1), which is Stable Diffusion's.
    There the two layers are convolutions of one pixel, or linear, which is the same.

    Args:
        channels: C, see `normalization`.
        heads: number of heads, a divisor of C.
        depth: number of blocks.
        token_channels: D', of the tokens.
        skip_rescale: whether the sum is divided by the square root of 2.
        norm_groups: see `normalization`; its epsilon is 1e-6 here, whatever that of other blocks.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        depth: int,
        token_channels: int,
        skip_rescale: bool = False,
        norm_groups: int | None = None,
    ) -> None:
        super().__init__()
        self.skip_rescale = skip_rescale
        self.norm = normalization(channels, groups=norm_groups)
        self.first = fan_average(nn.Linear(channels, channels))
        self.blocks = nn.ModuleList(TransformerBlock(channels, heads, token_channels) for _ in range(depth))
        self.project = zero(nn.Linear(channels, channels))

    def forward(
        self, x: Tensor, embedding: Tensor | None = None, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map features (B, C, H, W), given tokens (B, L, D') and their mask (B, L), to features of the same shape."""
        assert tokens is not None
        pixels = self.first(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.blocks:
            pixels = block(pixels, tokens, mask)
        return join(x, self.project(pixels).transpose(1, 2).unflatten(2, x.shape[2:]), self.skip_rescale)


class TransformerBlock(nn.Module):
    """Self-attention, attention to tokens and a gated perceptron, each behind LayerNorm and added to its input.

    Args:
        width: size of the features.
        heads: number of heads of both attentions, a divisor of `width`.
        token_channels: size of the tokens.
    """

    def __init__(self, width: int, heads: int, token_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.own = TokenAttention(width, heads, width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.cross = TokenAttention(width, heads, token_channels, bias=False)
        self.norm3 = nn.LayerNorm(width)
        self.gated = fan_average(nn.Linear(width, 2 * MLP_RATIO * width))
        self.last = fan_average(nn.Linear(MLP_RATIO * width, width))

    def forward(self, features: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map features (B, N, width), given tokens (B, L, token_channels), to features of the same shape.

        Args:
            features: of the pixels.
            tokens: of the condition.
            mask: which of the tokens are attended to, (B, L) bool; None: all.
        """
        normalized = self.norm1(features)
        features = features + self.own(normalized, normalized)
        features = features + self.cross(self.norm2(features), tokens, mask)
        # GEGLU (Shazeer 2020, arXiv 2002.05202).
        values, gate = self.gated(self.norm3(features)).chunk(2, dim=2)
        return features + self.last(values * functional.gelu(gate))
