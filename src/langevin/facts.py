"""What a model must know of its data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class DataFacts:
    """What the model must know of the data; stored with its weights.

    Attributes:
        channels: of an image.
        image_size: the side of an image in pixels.
        num_classes: how many classes the labels distinguish; None without labels.
        content: the digest of the images and labels, see `langevin.content`; None where that is not known, as of an
            imported model.
    """

    channels: int
    image_size: int
    num_classes: int | None
    content: str | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of an image."""
        return self.channels, self.image_size, self.image_size

    @classmethod
    def read(cls, values: Any) -> Self:
        """Parse what `plain` gave, from an untrusted file.

        Raises:
            ValueError: when it is anything else.
        """
        if not isinstance(values, Mapping):
            raise ValueError("is no mapping")
        try:
            facts = cls(**values)
        except TypeError as error:
            raise ValueError(f"has other entries than Langevin's ({str(error).partition(' ')[2]})") from error
        for name, number in (("channels", facts.channels), ("image_size", facts.image_size)):
            if type(number) is not int or number < 1:
                raise ValueError(f"has {name} {number!r}; allowed: a whole number from 1 up")
        if facts.num_classes is not None and (type(facts.num_classes) is not int or facts.num_classes < 1):
            raise ValueError(f"has num_classes {facts.num_classes!r}; allowed: a whole number from 1 up, or none")
        if not isinstance(facts.content, str | None):
            raise ValueError(f"has content {facts.content!r}; allowed: a digest, or none")
        return facts

    def plain(self) -> dict[str, Any]:
        """As plain values; of the content nothing where it is not known."""
        return {name: value for name, value in asdict(self).items() if name != "content" or value is not None}
