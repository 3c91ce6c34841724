"""Images of bytes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from langevin.images import Figure, enlargement, from_uint8, image_grid, to_uint8, write_png
from langevin.modalities.modality import Modality


class ImageModality(Modality):
    """Images: uint8 levels 0..255, for a model in [-1, 1]."""

    noun = "images"
    levels = 256
    suffix = ".png"

    def to_model(self, stored: Tensor) -> Tensor:
        """See `Modality`."""
        return from_uint8(stored)

    def from_model(self, x: Tensor) -> Tensor:
        """See `Modality`."""
        return to_uint8(x)

    def preview(self, samples: Tensor, columns: int) -> Figure:
        """See `Modality`: a grid."""
        return Figure(image_grid(samples, columns), enlargement(samples.shape[-1]))

    def strips(self, x_t: Sequence[Tensor], x: Sequence[Tensor], finished: Tensor) -> Figure:
        """See `Modality`: two rows an image, x_t and below it the predicted x; the finished image ends both."""
        rows = [
            image
            for index, last in enumerate(finished)
            for seen in (x_t, x)
            for image in [*(frame[index] for frame in seen), last]
        ]
        return self.preview(torch.stack(rows), len(x) + 1)

    def write(self, path: Path, sample: Tensor) -> None:
        """See `Modality`: a PNG."""
        write_png(path, sample.expand(3, -1, -1).permute(1, 2, 0).numpy())
