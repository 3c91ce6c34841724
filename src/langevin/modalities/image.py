"""Images of bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from langevin.images import (
    LONGEST_SIDE_LABEL,
    Figure,
    GridLabels,
    class_labels,
    from_uint8,
    labelled_grid,
    shortened,
    to_uint8,
    write_png,
)
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

    def preview(self, samples: Tensor, columns: int, classes: Sequence[str] | None = None) -> Figure:
        """See `Modality`: a grid."""
        return labelled_grid(samples, columns, class_labels(classes, columns))

    def strips(
        self,
        x_t: Sequence[Tensor],
        x: Sequence[Tensor],
        finished: Tensor,
        times: Sequence[str] = (),
        classes: Sequence[str] | None = None,
    ) -> Figure:
        """See `Modality`: two rows an image, x_t and below it the predicted x; the finished image ends both."""
        rows = [
            image
            for index, last in enumerate(finished)
            for seen in (x_t, x)
            for image in [*(frame[index] for frame in seen), last]
        ]
        room = LONGEST_SIDE_LABEL - len(": x_t")
        of_classes = [""] * len(finished) if classes is None else [f"{shortened(name, room)}: " for name in classes]
        sides = [side for name in of_classes for side in (f"{name}x_t", "predicted x")]
        labels = GridLabels([*((time, 1) for time in times), ("sample", 1)], sides) if times else GridLabels()
        return labelled_grid(torch.stack(rows), len(x) + 1, labels)

    def beside(self, kinds: Mapping[str, Tensor], columns: int, classes: Sequence[str] | None = None) -> Figure:
        """See `Modality`: groups of images, with the kinds above the columns and the classes below the samples."""
        number = len(next(iter(kinds.values())))
        groups = min(number, max(1, columns // len(kinds)))
        images = torch.stack([*kinds.values()], dim=1).flatten(0, 1)
        captions = [] if classes is None else [text for name in classes for text in [""] * (len(kinds) - 1) + [name]]
        return labelled_grid(
            images, groups * len(kinds), GridLabels([(kind, 1) for kind in kinds] * groups, (), captions)
        )

    def write(self, path: Path, sample: Tensor) -> None:
        """See `Modality`: a PNG."""
        write_png(path, sample.expand(3, -1, -1).permute(1, 2, 0).numpy())
