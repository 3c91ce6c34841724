"""What a model must know of its data."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DataFacts:
    """What the model must know of the data; stored with its weights.

    Attributes:
        channels: of a picture.
        image_size: the side of a picture in pixels.
        num_classes: how many classes the labels tell apart; None without labels.
        content: the digest of the images and labels, see `langevin.content`; None where that is not known, as of an
            imported model.
    """

    channels: int
    image_size: int
    num_classes: int | None
    content: str | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a picture."""
        return self.channels, self.image_size, self.image_size

    def plain(self) -> dict[str, Any]:
        """As plain values; of the content nothing where it is not known."""
        return {name: value for name, value in asdict(self).items() if name != "content" or value is not None}
