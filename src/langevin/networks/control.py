"""An adapter that lets images control a frozen U-Net: ControlNet."""

import copy
import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from langevin.networks.blocks.way_down import WayDown
from langevin.networks.initialization import fan_average, zero

PREFIX = "control."
"""What the names of its weights begin with, in the network that it controls."""
COPIED = ("time", "first", "down", "progressive", "middle")
"""The parts of the network that it has copies of."""
HINT_WIDTHS = (16,)
"""Channels inside the stem of the images, where these have the size of x."""


class ControlBranch(WayDown):
    """A trainable copy of a U-Net's embedding of the noise level, stem, encoder and middle, which sees images as well.

    What it computes is added to the network's skip connections and to its middle, through 1x1 convolutions that start
    at zero; the images enter behind its stem, through convolutions of which the last starts at zero. So at first
    nothing is added. The condition's embedding is the network's own, and frozen as that is.

    Source: ControlNet (Zhang, Rao & Agrawala 2023, arXiv 2302.05543, section 3). Its stem of the images has the
    widths (16, 32, 96, 256), which halve their size three times, for latents of an eighth of it.

    Args:
        network: to be controlled.
        images: channels of the images.
        widths: of the features after the network's stem and after each step down.
        stem: channels inside the stem of the images, which each after the first halves in size.
    """

    def __init__(self, network: WayDown, images: int, widths: Sequence[int], stem: Sequence[int] = HINT_WIDTHS) -> None:
        super().__init__()
        self.map_condition = network.map_condition
        self.checkpointing = network.checkpointing
        for name in COPIED:
            setattr(self, name, copy.deepcopy(getattr(network, name)))
        layers: list[nn.Module] = [fan_average(nn.Conv2d(images, stem[0], 3, padding=1)), nn.SiLU()]
        for before, after in itertools.pairwise(stem):
            layers += [fan_average(nn.Conv2d(before, before, 3, padding=1)), nn.SiLU()]
            layers += [fan_average(nn.Conv2d(before, after, 3, stride=2, padding=1)), nn.SiLU()]
        self.hint = nn.Sequential(*layers, zero(nn.Conv2d(stem[-1], widths[0], 3, padding=1)))
        self.zeros = nn.ModuleList(zero(nn.Conv2d(width, width, 1)) for width in (*widths, widths[-1]))

    def copy(self, network: WayDown) -> None:
        """Take the weights that a network has in the same parts."""
        for name in COPIED:
            getattr(self, name).load_state_dict(getattr(network, name).state_dict())

    def forward(
        self,
        x: Tensor,
        images: Tensor,
        c_noise: Tensor,
        vector: Tensor | None,
        tokens: Tensor | None,
        mask: Tensor | None,
    ) -> list[Tensor]:
        """What is to be added to the features after the network's stem, each step down, and its middle.

        Args:
            x: (B, C, H, W), channels innermost, as the network's.
            images: (B, C', f H, f W), where f is 2 ** (number of the stem's widths - 1).
            c_noise: (B,).
            vector: of the condition (B, D), or None.
            tokens: likewise (B, L, D').
            mask: of the tokens, (B, L), or None.
        """
        seen = self.encode(x, self.embed(c_noise, vector), tokens, mask, self.hint(images))
        return [layer(features) for layer, features in zip(self.zeros, seen, strict=True)]
