"""The features of a classifier that was trained here."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from langevin.digest import digest_of
from langevin.errors import UserError
from langevin.features.extractor import FeatureExtractor
from langevin.images import from_uint8
from langevin.spec import DataSpec


class ClassifierFeatures(FeatureExtractor):
    """A classifier of noisy images, applied to clean ones: for machines without the weights of Inception.

    Outputs ``features``, the vector before the last linear map, and ``logits``, those of the classes. Its values
    compare models of the data that the classifier was trained on, measured with this same classifier; nothing in the
    literature compares with them. It takes images of exactly the shape that it was trained on.

    Args:
        load_clean_classifier: gives what maps images in [-1, 1] to features and logits, by a run or a checkpoint;
            with the spec of its data, and the data's name.
        checkpoint: that run's folder, or a .ckpt file: of ``langevin train task=classifier``.
    """

    preprocessing = "none but x / 127.5 - 1, taken for an image at the classifier's time of least noise"
    takes_rgb = False

    def __init__(
        self, load_clean_classifier: Callable[[str, str], tuple[nn.Module, DataSpec, str]], checkpoint: str
    ) -> None:
        super().__init__()
        self.load = load_clean_classifier
        self.checkpoint = checkpoint
        self.name = "classifier"
        self.network: nn.Module | None = None

    def prepare(self) -> None:
        """Load the classifier, see the base class.

        Raises:
            UserError: when there is no such classifier.
        """
        if self.network is not None:
            return
        self.network, spec, data = self.load("features.checkpoint", self.checkpoint)
        self.shape = spec.shape
        self.sha256 = digest_of(self.network)
        self.name = f"classifier-{data}-{self.sha256[:8]}"
        probe = self(torch.zeros(1, *self.shape, dtype=torch.uint8))
        self.sizes = {key: output.shape[1] for key, output in probe.items()}

    def check(self, shape: tuple[int, int, int], option: str) -> None:
        """Check that the images have the shape that it was trained on, see the base class."""
        if shape != self.shape:
            raise UserError(
                f"{option}: its images are of (channels, height, width) {shape}; allowed with "
                f"features.checkpoint={self.checkpoint}: {self.shape}, as those that it was trained on"
            )

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Compute ``features`` (B, D) and ``logits`` (B, classes) of uint8 images (B, C, H, W)."""
        assert self.network is not None, "prepare() comes first"
        features, logits = self.network(from_uint8(images))
        return {"features": features, "logits": logits}
