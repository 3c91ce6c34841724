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
    """

    channels: int
    image_size: int
    num_classes: int | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a picture."""
        return self.channels, self.image_size, self.image_size

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)
