"""From pixels to the features that the metrics compare."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from langevin.errors import UserError

BATCH = 16
"""Images that a network is given at once."""


class FeatureExtractor(nn.Module, ABC):
    """A frozen network whose outputs represent an image in FID, Inception Score and similar metrics.

    Constructing one costs little and opens no weights: `prepare` finds them, and what follows is final only after it.
    A subclass implements `prepare` and `extract`.

    Attributes:
        sizes: the width of each output: ``{"features": 2048, "logits": 1008}``. ``features`` is always among them.
        name: names the extractor and its weights in reports and metric names, such as ``inception-6726825d``.
        sha256: of the weights, in hexadecimal digits.
        preprocessing: what is done to the uint8 pixels before they enter the network, in one line.
        official: whether the weights are, by their sha256, those that the literature uses.
        takes_rgb: whether a grey image is repeated to three channels for it.
    """

    sizes: Mapping[str, int]
    name: str
    sha256: str
    preprocessing: str
    official: bool = False
    takes_rgb: ClassVar[bool] = True

    @abstractmethod
    def prepare(self) -> None:
        """Find and load the weights; a second call does nothing.

        Raises:
            UserError: when there are no usable weights. Called before anything is trained or sampled.
        """

    @abstractmethod
    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the outputs of uint8 images (B, 3, H, W): a float32 tensor (B, `sizes[key]`) for each key.

        Where `takes_rgb` is false they have the channels that `check` allows.
        """

    def check(self, shape: tuple[int, int, int], option: str) -> None:
        """Check that it can take the images to come; `prepare` comes first.

        Args:
            shape: theirs: (channels, height, width).
            option: what names them, for the message, such as ``samples=FILE``.

        Raises:
            UserError: when it cannot.
        """
        if shape[0] not in (1, 3):
            raise UserError(f"{option}: its images have {shape[0]} channels; allowed: 1 (repeated to three) or 3")

    def record(self) -> dict[str, Any]:
        """What must be known to compute the same features again, as plain values; `prepare` comes first."""
        return {
            "extractor": self.name,
            "sha256": self.sha256,
            "preprocessing": self.preprocessing,
            "official": self.official,
            "outputs": dict(self.sizes),
        }

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the outputs in full float32, for any precision of the evaluated model.

        An image's outputs do not depend on the rest of the batch, bit for bit: batches are padded to `BATCH` images.

        Args:
            images: uint8 (B, C, H, W), as `check` allows.

        Returns:
            A float32 tensor (B, `sizes[key]`) for each key.
        """
        images = images.expand(-1, 3, -1, -1) if self.takes_rgb else images
        with full_precision(images.device):
            parts = [self._extract_filled(part) for part in images.split(BATCH)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _extract_filled(self, images: Tensor) -> dict[str, Tensor]:
        return {name: output[: len(images)] for name, output in self.extract(filled(images)).items()}

    def metric_name(self, official: str, otherwise: str) -> str:
        """Name a metric so that a value on other weights is never mistaken for one comparable with the literature.

        Args:
            official: the metric's well-known name, such as ``fid``.
            otherwise: what it is called on any other weights, such as ``fd``; the extractor's name is appended.
        """
        return official if self.official else f"{otherwise}_{self.name}"


def filled(images: Tensor) -> Tensor:
    """A batch of at most `BATCH` images, with black ones up to that number: (`BATCH`, C, H, W).

    A network's output depends a little on the batch size: FID by 7e-9, the Inception Score by 4e-7.
    """
    whole = images.new_zeros(BATCH, *images.shape[1:])
    whole[: len(images)] = images
    return whole


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute in float32, for any precision of the evaluated model: bfloat16 moved FID by 0.16%."""
    with torch.autocast(device.type, enabled=False), _without_tf32():
        yield


@contextmanager
def _without_tf32() -> Iterator[None]:
    # Where a run uses these switches, reading the older allow_tf32 raises.
    cudnn: Any = torch.backends.cudnn  # whose parts mypy does not see
    owners: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv)
    before = [owner.fp32_precision for owner in owners]
    for owner in owners:
        owner.fp32_precision = "ieee"
    try:
        yield
    finally:
        for owner, precision in zip(owners, before, strict=True):
            owner.fp32_precision = precision
