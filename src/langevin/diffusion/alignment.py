"""Hidden features of a denoiser that are to resemble those of a classifier."""

from collections.abc import Callable
from typing import Annotated, Any, Self

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from langevin.diffusion.auxiliary import Auxiliary, Seen
from langevin.digest import digest_of
from langevin.errors import OptionError
from langevin.spec import DataSpec
from langevin.taps import taps_of
from langevin.unsaved import leave_out

Loader = Callable[[str, str], tuple[nn.Module, DataSpec, str]]


class Alignment(Auxiliary):
    """Minus the cosine similarity of hidden features of noisy samples with a classifier's features of the clean ones.

    ``- mean over positions n of cos(h(f_n(x_t)), g_n(x))``: f are the features of the network at one of its taps, h a
    perceptron of three linear layers with SiLU between them, which is trained along, and g the activations of a frozen
    classifier of noisy images at its time of least noise. Where the two maps differ in size, each side of both is
    brought to the smaller number of positions by averaging (adaptive average pooling); a classifier that gives one
    vector an image has a map of one position, so that the network's features are then their mean over the image.

    The classifier is not saved with the run, which knows it by the digest of its weights.

    Source: REPA (Yu et al. 2024, arXiv 2410.06940), equations 8 and 9, where g are the patches of DINOv2, as many as
    the transformer has.

    Args:
        network: what is trained, which has taps.
        load_clean_classifier: gives what maps images in [-1, 1] to activations, by a run or a checkpoint; with the spec
            of its data, and the data's name.
        run: that run's folder, or a .ckpt file: of ``langevin train task=classifier``.
        weights: the digest of the weights that it had when the run was started; None: not known.
        tap: the place in the network, see `Network.taps`; None: `Network.default_tap`.
        level: of the classifier's activations: 0 for the finest, -1 for the deepest.
        width: of the perceptron's two hidden layers.
        weight: how much the term counts.

    Raises:
        OptionError: when there is no such classifier, level or tap, or the classifier has other weights by now.
    """

    def __init__(
        self,
        network: nn.Module,
        load_clean_classifier: Loader,
        run: str,
        weights: str | None = None,
        tap: str | None = None,
        level: int = -1,
        width: Annotated[int, Ge(1)] = 256,
        weight: Annotated[float, Gt(0)] = 0.5,
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
        self.tap = str(name)
        self.taps = (self.tap,)
        self.run = run
        self.level = level
        self.encoder_spec: DataSpec
        self.frozen_encoder: Any
        self.frozen_encoder, self.encoder_spec, _ = load_clean_classifier("run", run)
        self.frozen_encoder.requires_grad_(False).eval()
        if weights not in (None, found := digest_of(self.frozen_encoder.classifier.network)):
            text = f"is {run}, whose weights are {found[:8]} now; allowed: those of {str(weights)[:8]}"
            raise OptionError("run", text)
        with torch.no_grad():
            levels = self.frozen_encoder.levels(torch.zeros(1, *self.encoder_spec.shape))
        if not -len(levels) <= level < len(levels):
            allowed = f"{-len(levels)} to {len(levels) - 1}, of the {len(levels)} levels of the classifier"
            raise OptionError("level", f"is {level}; allowed: {allowed}")
        self.projector = nn.Sequential(
            nn.Linear(taps[self.tap].channels, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, levels[level].shape[1]),
        )
        leave_out(self, self.frozen_encoder, "frozen_encoder.")

    def check(self, spec: DataSpec) -> None:
        """See `Auxiliary`: images of the shape that the classifier was trained on, and no latents."""
        own = self.encoder_spec
        if (spec.shape, spec.levels) != (own.shape, own.levels):
            what = "what is diffused is no image" if spec.levels is None else f"these are of {spec.shape}"
            raise OptionError(
                "run",
                f"is {self.run}, a classifier of images of (channels, height, width) {own.shape}, and {what}; allowed: "
                "a classifier of the same images as are diffused, with codec=identity",
            )

    def train(self, mode: bool = True) -> Self:
        """See `nn.Module`; the classifier stays in evaluation mode."""
        super().train(mode)
        self.frozen_encoder.eval()
        return self

    def forward(self, seen: Seen) -> Tensor:
        """See `Auxiliary`: in [-1, 1]."""
        hidden = seen.features[self.tap]
        with torch.no_grad():
            target = self.frozen_encoder.levels(seen.x)[self.level]
        size = min(hidden.shape[2], target.shape[2]), min(hidden.shape[3], target.shape[3])
        # (B, positions, channels)
        hidden, target = (functional.adaptive_avg_pool2d(each, size).flatten(2).mT for each in (hidden, target))
        projected = self.projector(hidden).float()  # half precision under autocast
        return -functional.cosine_similarity(projected, target.float(), dim=2).mean(1)
