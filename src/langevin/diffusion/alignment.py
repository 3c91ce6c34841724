"""Hidden features of a denoiser that are to resemble those of a classifier."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from langevin.diffusion.auxiliary import Teacher
from langevin.diffusion.feature_alignment import FeatureAlignment
from langevin.errors import OptionError
from langevin.spec import DataSpec


class Alignment(FeatureAlignment):
    """The alignment of hidden features with the activations of a classifier that was trained here.

    It is a frozen classifier of noisy images, applied to clean ones at its time of least noise: see `FeatureAlignment`.

    Args:
        network: what is trained, which has taps.
        teacher: the classifier, see `read`.
        run: that run's folder, or a .ckpt file: of ``langevin train task=classifier``.
        weights: the digest of the weights that it had when the run was started; None: not known.
        tap: the place in the network, see `Network.taps`; None: `Network.default_tap`.
        level: of the classifier's activations: 0 for the finest, -1 for the deepest.
        width: of the perceptron's two hidden layers.
        weight: how much the term counts.

    Raises:
        OptionError: when there is no such level or tap, or the classifier has other weights by now.
    """

    def __init__(
        self,
        network: nn.Module,
        teacher: Teacher,
        run: str,
        weights: str | None = None,
        tap: str | None = None,
        level: int = -1,
        width: Annotated[int, Ge(1)] = 256,
        weight: Annotated[float, Gt(0)] = 0.5,
    ) -> None:
        assert teacher.spec is not None
        with torch.no_grad():
            levels = teacher.module.levels(torch.zeros(1, *teacher.spec.shape))
        if not -len(levels) <= level < len(levels):
            allowed = f"{-len(levels)} to {len(levels) - 1}, of the {len(levels)} levels of the classifier"
            raise OptionError("level", f"is {level}; allowed: {allowed}")
        super().__init__(network, teacher, levels[level].shape[1], weights, tap, width, weight)
        self.run = run
        self.level = level
        self.encoder_spec = teacher.spec

    @classmethod
    def read(cls, options: Mapping[str, Any], loaders: Mapping[str, Callable[..., Any]]) -> Teacher:
        """See `Auxiliary`: the classifier, by its run; with the spec of its images."""
        classifier, spec, _ = loaders["load_clean_classifier"]("run", options["run"])
        return Teacher.of(classifier, classifier.classifier.network, f"run={options['run']}", spec)

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

    def encoded(self, x: Tensor) -> Tensor:
        """See `FeatureAlignment`."""
        levels: list[Tensor] = self.frozen_encoder.levels(x)
        return levels[self.level]
