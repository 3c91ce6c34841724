"""Hidden features of a denoiser that are to resemble those of a frozen encoder."""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Self

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from langevin.diffusion.auxiliary import Auxiliary, Seen, Teacher
from langevin.errors import OptionError
from langevin.taps import taps_of
from langevin.unsaved import leave_out


class FeatureAlignment(Auxiliary, ABC):
    """Minus the cosine similarity of hidden features of noisy samples with an encoder's features of the clean ones.

    ``- mean over positions n of cos(h(f_n(x_t)), g_n(x))``: f are the features of the network at one of its taps, h a
    perceptron of three linear layers with SiLU between them, which is trained along, and g those of a frozen encoder.
    Where the two maps differ in size, each side of both is brought to the smaller number of positions by averaging
    (adaptive average pooling); an encoder that gives one vector an image has a map of one position, so that the
    network's features are then their mean over the image.

    The encoder is not saved with the run, which knows it by the digest of its weights. A subclass implements `read`,
    `encoded` and `check`.

    Source: REPA (Yu et al. 2024, arXiv 2410.06940), equations 8 and 9.

    Args:
        network: what is trained, which has taps.
        teacher: the encoder, see `read`.
        channels: of its maps.
        weights: the digest of the weights that it had when the run was started; None: not known.
        tap: the place in the network, see `Network.taps`; None: `Network.default_tap`.
        width: of the perceptron's two hidden layers.
        weight: how much the term counts.

    Raises:
        OptionError: when there is no such tap, or the encoder has other weights by now.
    """

    def __init__(
        self,
        network: nn.Module,
        teacher: Teacher,
        channels: int,
        weights: str | None,
        tap: str | None,
        width: Annotated[int, Ge(1)],
        weight: Annotated[float, Gt(0)],
    ) -> None:
        super().__init__(weight)
        taps, name = taps_of(network), getattr(network, "default_tap", None) if tap is None else tap
        given = "null" if tap is None else tap or "''"
        if not taps:
            allowed = "null with a network that has some, such as model=unet or model=dit_s"
            raise OptionError("tap", f"is {given}, and {type(network).__name__} has no taps; allowed: {allowed}")
        if name not in taps:
            allowed = f"null or one of {', '.join(taps)}"
            raise OptionError("tap", f"is {given}; allowed with this {type(network).__name__}: {allowed}")
        if weights not in (None, teacher.weights):
            text = f"is {str(weights)[:8]}, and what was read has {teacher.weights[:8]}; leave it out"
            raise OptionError("weights", text)
        self.tap = str(name)
        self.taps = (self.tap,)
        self.frozen_encoder: Any = teacher.module
        self.projector = nn.Sequential(
            nn.Linear(taps[self.tap].channels, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, channels),
        )
        leave_out(self, self.frozen_encoder, "frozen_encoder.")

    @abstractmethod
    def encoded(self, x: Tensor) -> Tensor:
        """The encoder's maps (B, C', h, w) of clean samples x (B, C, H, W), images in [-1, 1]."""

    def train(self, mode: bool = True) -> Self:
        """See `nn.Module`; the encoder stays in evaluation mode."""
        super().train(mode)
        self.frozen_encoder.eval()
        return self

    def forward(self, seen: Seen) -> Tensor:
        """See `Auxiliary`: in [-1, 1]."""
        hidden = seen.features[self.tap]
        with torch.no_grad():
            target = self.encoded(seen.x)
        size = min(hidden.shape[2], target.shape[2]), min(hidden.shape[3], target.shape[3])
        # (B, positions, channels)
        hidden, target = (functional.adaptive_avg_pool2d(each, size).flatten(2).mT for each in (hidden, target))
        projected = self.projector(hidden).float()  # half precision under autocast
        return -functional.cosine_similarity(projected, target.float(), dim=2).mean(1)
