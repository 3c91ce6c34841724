"""Hidden features of a denoiser that are to resemble DINOv2's."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt
from torch import Tensor, nn

from langevin.diffusion.auxiliary import Teacher
from langevin.diffusion.feature_alignment import FeatureAlignment
from langevin.errors import OptionError
from langevin.spec import DataSpec


class DINOv2Alignment(FeatureAlignment):
    """The alignment of hidden features with the patch tokens of DINOv2, as in REPA: see `FeatureAlignment`.

    Args:
        network: what is trained, which has taps.
        teacher: DINOv2's patches, see `read`.
        model: which DINOv2: dinov2-vit-s-14, -b-14, -l-14 or -g-14.
        weights: the digest of the weights that it had when the run was started; None: not known.
        tap: the place in the network, see `Network.taps`; None: `Network.default_tap`.
        width: of the perceptron's two hidden layers.
        weight: how much the term counts.

    Raises:
        OptionError: when there is no such tap, or DINOv2 has other weights by now.
    """

    def __init__(
        self,
        network: nn.Module,
        teacher: Teacher,
        model: str = "dinov2-vit-b-14",
        weights: str | None = None,
        tap: str | None = None,
        width: Annotated[int, Ge(1)] = 2048,
        weight: Annotated[float, Gt(0)] = 0.5,
    ) -> None:
        super().__init__(network, teacher, teacher.module.channels, weights, tap, width, weight)
        self.model = model

    @classmethod
    def read(cls, options: Mapping[str, Any], loaders: Mapping[str, Callable[..., Any]]) -> Teacher:
        """See `Auxiliary`: DINOv2, by torch hub."""
        patches = loaders["load_dinov2"]("model", options["model"])
        return Teacher.of(patches, patches.network, f"model={options['model']}")

    def check(self, spec: DataSpec) -> None:
        """See `Auxiliary`: images of one channel or three, and no latents."""
        if spec.levels is None or len(spec.shape) != 3 or spec.channels not in (1, 3):
            what = "what is diffused is no image" if spec.levels is None else f"these are of {spec.shape}"
            allowed = "images of 1 channel (repeated to three) or 3, with codec=identity"
            raise OptionError("model", f"is {self.model}, which sees images, and {what}; allowed: {allowed}")

    def encoded(self, x: Tensor) -> Tensor:
        """See `FeatureAlignment`."""
        maps: Tensor = self.frozen_encoder(x)
        return maps
