"""The interface of every block, and what blocks share."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

NORM_GROUPS = 32
NORM_EPSILON = 1e-6
SKIP_SCALE = math.sqrt(0.5)


class Block(nn.Module, ABC):
    """A function of features, of the embedding of noise level and condition, and of the condition's tokens.

    All blocks share this one signature, even those that need neither, so that they are interchangeable.
    """

    @abstractmethod
    def forward(
        self, x: Tensor, embedding: Tensor | None = None, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map features to features.

        Args:
            x: (B, C, H, W).
            embedding: (B, D); None for blocks that were made without one.
            tokens: (B, L, D'), for attention; None in a network without cross-attention.
            mask: which of the tokens are attended to, (B, L) bool; None: all.

        Returns:
            (B, C', H', W').
        """


class Chain(Block):
    """Blocks applied one after the other under the same embedding and tokens.

    Args:
        *blocks: at least one.
    """

    def __init__(self, *blocks: Block) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, x: Tensor, embedding: Tensor | None = None, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """See `Block`; the features are those of the last."""
        for block in self.blocks:
            x = block(x, embedding, tokens, mask)
        return x


def normalization(channels: int, epsilon: float = NORM_EPSILON, groups: int | None = None) -> nn.GroupNorm:
    """Give the U-Nets' normalization: at most 32 groups, of at least 4 channels, unless their number is given.

    A group of one channel would remove what the embedding adds to it, so that a narrow network would lose the noise
    level and the label. Source of the 4: EDM's networks (Karras et al. 2022). From 128 channels on there are
    32 groups, as in DDPM's and OpenAI's networks.

    Args:
        channels: a multiple of 32, or of `groups`.
        epsilon: added to the variance; DDPM and NCSN++ have 1e-6, OpenAI's networks 1e-5.
        groups: how many; None: as above.
    """
    return nn.GroupNorm(groups or min(NORM_GROUPS, channels // 4), channels, eps=epsilon)


def innermost(x: Tensor) -> Tensor:
    """What a convolution takes features (B, C, H, W) as: channels innermost, in the precision of autocast.

    On a GPU normalization returns the usual layout, whatever it was given. A convolution then makes a copy of its input
    in either direction, each after the one that autocast makes; here both are one, which the backward pass keeps. Where
    the features are as they should be, they are returned themselves.
    """
    kind = x.device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and x.dtype != torch.float64
    return x.to(torch.get_autocast_dtype(kind) if casts else x.dtype, memory_format=torch.channels_last)


def join(skip: Tensor, branch: Tensor, rescale: bool) -> Tensor:
    """Add a residual branch to what it passes by.

    Args:
        skip: any shape.
        branch: of the same shape; overwritten, which spares the memory of a feature map: no layer that ends a branch
            needs its result for the gradient.
        rescale: divide the sum by the square root of 2, so that two summands of unit variance give unit variance
            (Score-SDE, appendix C, after StyleGAN).
    """
    total = branch.add_(skip)
    return total * SKIP_SCALE if rescale else total
