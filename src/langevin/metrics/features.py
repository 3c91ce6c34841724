"""From pixels to the features that the metrics compare."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class FeatureExtractor(nn.Module, ABC):
    """A frozen network whose outputs stand for an image in FID, Inception Score and their kin.

    Constructing one costs nothing and touches no file: `prepare` finds the weights. A subclass sets `sizes` and
    implements `prepare` and `extract`.

    Attributes:
        sizes: the width of each output, known before the weights are: ``{"features": 2048, "logits": 1008}``.
        name: names the extractor and its weights in reports and metric names, such as ``inception-6726825d``; final
            after `prepare`.
        official: whether the weights are, by their sha256, the ones that the literature's figures rest on; final
            after `prepare`.
    """

    sizes: ClassVar[Mapping[str, int]]
    name: str
    official: bool = False

    @abstractmethod
    def prepare(self) -> None:
        """Find and load the weights; a second call does nothing.

        Raises:
            UserError: when there are no usable weights. Called before anything is trained or sampled.
        """

    @abstractmethod
    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the outputs of uint8 images (B, 3, H, W): a float32 tensor (B, `sizes[key]`) for each key."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the outputs in full float32, whatever the precision of the model around.

        Args:
            images: uint8 (B, C, H, W), C = 1 (repeated to three channels) or 3.

        Returns:
            A float32 tensor (B, `sizes[key]`) for each key.
        """
        # bfloat16 in this network moved FID by 0.16%.
        with torch.autocast(images.device.type, enabled=False), _without_tf32():
            return self.extract(images.expand(-1, 3, -1, -1))

    def metric_name(self, official: str, otherwise: str) -> str:
        """Name a metric so that a value on other weights is never taken for the literature's.

        Args:
            official: the metric's well-known name, such as ``fid``.
            otherwise: what it is called on any other weights, such as ``fd``; the extractor's name is appended.
        """
        return official if self.official else f"{otherwise}_{self.name}"


@contextmanager
def _without_tf32() -> Iterator[None]:
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    exact: str | bool
    if hasattr(matmul, "fp32_precision"):  # torch >= 2.9: where a run uses these, reading allow_tf32 raises
        owners, switch, exact = (matmul, cudnn.conv), "fp32_precision", "ieee"
    else:
        owners, switch, exact = (matmul, cudnn), "allow_tf32", False
    before = [getattr(owner, switch) for owner in owners]
    for owner in owners:
        setattr(owner, switch, exact)
    try:
        yield
    finally:
        for owner, value in zip(owners, before, strict=True):
            setattr(owner, switch, value)
