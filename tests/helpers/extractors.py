"""A feature extractor that is small, fast and gives the same bits at any batch size."""

import torch
from torch import Tensor

from langevin.metrics.features import FeatureExtractor


class TinyExtractor(FeatureExtractor):
    """Random integer projections of 8x8 images: sums of whole numbers, so no order of adding can change them."""

    sizes = {"features": 16, "logits": 10}  # noqa: RUF012
    name = "tiny-00000000"

    def __init__(self, official: bool = False) -> None:
        super().__init__()
        self.official = official
        self.images_seen = 0
        generator = torch.Generator().manual_seed(7)
        self.register_buffer("weight", torch.randint(-8, 9, (3 * 8 * 8, 26), generator=generator).double())

    def prepare(self) -> None:
        """Nothing to load."""

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        self.images_seen += len(images)
        projected = (images.flatten(1).double() @ self.weight / 4096).float()
        return {"features": projected[:, :16].tanh(), "logits": projected[:, 16:]}
