"""A feature extractor that is small, fast and gives the same bits at any batch size."""

import torch
from torch import Tensor

from langevin.features.extractor import FeatureExtractor


class TinyExtractor(FeatureExtractor):
    """Random integer projections of 8x8 images: sums of whole numbers, so no order of adding can change them."""

    sizes = {"features": 16, "logits": 10, "spatial": 12}  # noqa: RUF012
    name = "tiny-00000000"
    sha256 = "0" * 64
    preprocessing = "none"

    def __init__(self, official: bool = False) -> None:
        super().__init__()
        self.official = official
        self.images_seen = 0
        generator = torch.Generator().manual_seed(7)
        self.register_buffer("weight", torch.randint(-8, 9, (3 * 8 * 8, 26), generator=generator).double())

    def prepare(self) -> None:
        """Nothing to load."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.images_seen += len(images)
        return super().forward(images)

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        projected = (images.flatten(1).double() @ self.weight / 4096).float()
        spatial = images.flatten(1)[:, 3::16] / 256
        return {"features": projected[:, :16].tanh(), "logits": projected[:, 16:], "spatial": spatial}
