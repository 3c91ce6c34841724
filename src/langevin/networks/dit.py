"""DiT, the diffusion transformer (Peebles and Xie 2023, arXiv 2212.09748)."""

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from langevin.conditions.condition import Condition
from langevin.errors import refuse
from langevin.networks.blocks.attention import TokenAttention
from langevin.networks.embeddings import sinusoidal_embedding
from langevin.networks.network import NOTHING_TO_ATTEND_TO, Network
from langevin.taps import Tap, numbered

TIME_CHANNELS = 256
MLP_RATIO = 4
NORM_EPSILON = 1e-6
REPA_DEPTH = 8
"""After so many blocks REPA aligns the features of its larger networks (Yu et al. 2024, arXiv 2410.06940)."""


class DiT(Network):
    """A transformer over the image's patches; the noise level and the condition modulate each block.

    It starts at zero: every block as the identity and the last layer at 0 ("adaLN-Zero", section 3.2). Everything else
    starts as in the released code: linear layers after Xavier, the embeddings of time and condition small.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output: more than `in_channels` where a variance is learned.
        image_size: height and width of the image, divisible by `patch_size`.
        condition: builds the condition's embedding, called with `dim=`; None for an unconditional network.
        patch_size: height and width of a patch; the transformer sees (image_size / patch_size)^2 of them.
        width: size of a patch's features, a multiple of 4 (sine and cosine of two coordinates) and of `heads`.
        depth: number of blocks.
        heads: number of attention heads.
        checkpointing: keep only the blocks' inputs for the gradient and recompute the rest: slower by a third, with
            much less memory.
        time_endpoint: whether the frequencies of the time's features end with 1/10000 itself, as diffusers' do, see
            `sinusoidal_embedding`; else just above it, as in the released code.
        mlp_norm_epsilon: epsilon of the normalization before the perceptron; diffusers' `norm_eps`, there 1e-5.
        cross_attention: whether every block also attends to the condition's tokens (PixArt-alpha; Chen et al. 2023,
            arXiv 2310.00426). A vector by itself is then one token; a vector beside tokens modulates the blocks.

    Raises:
        OptionError: when some of these are incompatible, or do not fit the image size.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        image_size: int,
        condition: Callable[..., Condition] | None,
        patch_size: Annotated[int, Ge(1)],
        width: Annotated[int, Ge(1)],
        depth: Annotated[int, Ge(1)],
        heads: Annotated[int, Ge(1)],
        checkpointing: bool,
        time_endpoint: bool = False,
        mlp_norm_epsilon: Annotated[float, Gt(0)] = NORM_EPSILON,
        cross_attention: bool = False,
    ) -> None:
        super().__init__()
        wrong = []
        if image_size % patch_size:
            wrong.append(("patch_size", f"is {patch_size}; allowed: a divisor of the image size, {image_size}"))
        if width % 4:
            allowed = "a multiple of 4, for sine and cosine of two coordinates"
            wrong.append(("width", f"is {width}; allowed: {allowed}"))
        if width % heads:
            wrong.append(("heads", f"is {heads}; allowed: a divisor of the width, {width}"))
        if cross_attention and condition is None:
            wrong.append(NOTHING_TO_ATTEND_TO)
        refuse(wrong)
        self.attends = cross_attention
        self.patch_size = patch_size
        self.side = image_size // patch_size
        self.checkpointing = checkpointing
        self.time_endpoint = time_endpoint
        self.time = nn.Sequential(nn.Linear(TIME_CHANNELS, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = None if condition is None else condition(dim=width)
        self.patches = nn.Conv2d(in_channels + self.concat_channels, width, patch_size, stride=patch_size)
        # It follows from the sizes, so that no checkpoint need hold it.
        self.register_buffer("positions", position_embedding(self.side, width), persistent=False)
        token_channels = self.token_channels(width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads, mlp_norm_epsilon, token_channels) for _ in range(depth))
        self.default_tap = f"block_{min(REPA_DEPTH, depth)}"
        self.norm = normalization(width)
        self.modulation = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, patch_size * patch_size * out_channels)
        self._initialize()

    @property
    def taps(self) -> Mapping[str, Tap]:
        """See `Network`: the features of the patches after each block (block_1, ...)."""
        return numbered("block", self.blocks, [self.last.in_features] * len(self.blocks))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """Evaluate the network; see `Network.forward`. Height and width are those given as `image_size`."""
        waves = sinusoidal_embedding(c_noise, TIME_CHANNELS, endpoint=self.time_endpoint, cosine_first=True)
        embedding = self.time(waves.to(self.last.weight.dtype))
        x, context = self.conditioned(x, cond)
        if self.attends:
            context = context.attended()
        if context.vector is not None:
            embedding = embedding + context.vector
        embedding = functional.silu(embedding)

        patches = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            given = patches, embedding, context.tokens, context.mask
            if self.checkpointing and torch.is_grad_enabled():
                patches = checkpoint(block, *given, use_reentrant=False)
            else:
                patches = block(*given)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, dim=2)
        pixels = self.last(modulate(self.norm(patches), shift, scale))

        # (B, row, column, row in the patch, column in the patch, channel)
        pixels = pixels.unflatten(1, (self.side, self.side)).unflatten(3, (self.patch_size, self.patch_size, -1))
        return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    def _initialize(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                # The patches' convolution is a linear layer on the pixels of each.
                nn.init.xavier_uniform_(layer.weight.detach().flatten(1))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for embedding in (self.time, self.condition):
            for weight in () if embedding is None else embedding.parameters():
                if weight.ndim > 1:
                    nn.init.normal_(weight, std=0.02)
        nn.init.zeros_(self.last.weight)
        for module in self.modules():
            if isinstance(module, DiT | DiTBlock):
                nn.init.zeros_(module.modulation.weight)
            if isinstance(module, TokenAttention):
                nn.init.zeros_(module.project.weight)


class DiTBlock(nn.Module):
    """Self-attention, then a perceptron, each on normalized, modulated features and added through a gate.

    Shift, scale and gate of both are linear in the embedding ("adaLN-Zero", figure 3). Where there are tokens, features
    attend to these in between, as in PixArt-alpha: without normalization, shift, scale or gate.

    Args:
        width: size of a patch's features.
        heads: number of attention heads, a divisor of `width`.
        mlp_norm_epsilon: epsilon of the second normalization.
        token_channels: size of the tokens; None without any.
    """

    def __init__(self, width: int, heads: int, mlp_norm_epsilon: float, token_channels: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = normalization(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = normalization(width, mlp_norm_epsilon)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(approximate="tanh"), nn.Linear(MLP_RATIO * width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)
        self.cross = None if token_channels is None else TokenAttention(width, heads, token_channels, bias=True)

    def forward(
        self, patches: Tensor, embedding: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map features (B, N, width) to features of the same shape.

        Args:
            patches: the features.
            embedding: activated, (B, width).
            tokens: of the condition, (B, L, token_channels), for a block that attends to them.
            mask: which of the tokens are attended to, (B, L) bool; None: all.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedding)[:, None].chunk(6, dim=2)
        patches = patches + gate1 * self.attend(modulate(self.norm1(patches), shift1, scale1))
        if self.cross is not None:
            assert tokens is not None
            patches = patches + self.cross(patches, tokens, mask)
        return patches + gate2 * self.mlp(modulate(self.norm2(patches), shift2, scale2))

    def attend(self, patches: Tensor) -> Tensor:
        """Multi-head self-attention over the N patches."""
        query, key, value = self.qkv(patches).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.project(attended.transpose(1, 2).flatten(2))


def normalization(width: int, epsilon: float = NORM_EPSILON) -> nn.LayerNorm:
    """Layer normalization without weights of its own: shift and scale come from the embedding."""
    return nn.LayerNorm(width, elementwise_affine=False, eps=epsilon)


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale and shift features (B, N, width) by (B, 1, width) each; a scale of 0 changes nothing."""
    return tokens * (1 + scale) + shift


def position_embedding(side: int, width: int) -> Tensor:
    """The fixed features (side^2, width) of the patches of a square image, row by row: half its column, half its row.

    Each is sines, then cosines, as in the released code.
    """
    axis = sinusoidal_embedding(torch.arange(side), width // 2, endpoint=False)
    return torch.cat((axis.repeat(side, 1), axis.repeat_interleave(side, dim=0)), dim=1)
