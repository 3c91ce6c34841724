"""A distance by a classifier that was trained here."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from langevin.errors import OptionError
from langevin.perceptual.perceptual import PerceptualDistance, distance_of_levels
from langevin.spec import DataSpec


class ClassifierDistance(PerceptualDistance):
    """As LPIPS, by the activations of a classifier of noisy images: for machines without VGG's weights.

    The squared distance of unit vectors of activations, a mean over the positions, summed over the levels of the
    network's way down: in [0, 4 * number of levels]. Every channel counts the same. The images are taken for those at
    the classifier's time of least noise. Values compare only under the same classifier.

    Args:
        load_clean_classifier: gives what maps images in [-1, 1] to activations, by a run or a checkpoint; with the spec
            of its data, and the data's name.
        run: that run's folder, or a .ckpt file: of ``langevin train task=classifier``.

    Raises:
        OptionError: when there is no such classifier.
    """

    def __init__(self, load_clean_classifier: Callable[[str, str], tuple[nn.Module, DataSpec, str]], run: str) -> None:
        super().__init__()
        self.run = run
        self.classifier: Any
        self.classifier, self.spec, _ = load_clean_classifier("run", run)
        self.requires_grad_(False).eval()

    def check(self, spec: DataSpec) -> None:
        """Refuse samples of another shape than those that it was trained on, see the base class."""
        if spec.shape != self.spec.shape:
            raise OptionError(
                "run",
                f"is {self.run}, a classifier of images of (channels, height, width) {self.spec.shape}; allowed: one "
                f"of {spec.shape}",
            )

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """See the base class."""
        with torch.no_grad():
            expected = self.classifier.levels(target)
        return distance_of_levels(self.classifier.levels(x), expected)
