"""What a model must know of its data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class DataSpec:
    """What a model must know of the samples that it is trained on; stored with its weights.

    Attributes:
        shape: of a sample x, channels first: (C, H, W) of an image, (D,) of a vector.
        num_classes: how many classes the labels distinguish; None without labels.
        modality: the class of the samples' modality, by its full path.
        levels: how many values the data's numbers have, evenly spaced in [-1, 1]; None where x is any real numbers.
        content: the digest of the samples and labels, see `langevin.content`; None where that is not known, as of an
            imported model.
        vocabulary: of captioned training samples the captions' most frequent words, by frequency and then the alphabet;
            None without captions.
        latents: of latents what tells them from those of other codecs, as far as that is known; None of the data.
    """

    shape: tuple[int, ...]
    num_classes: int | None
    modality: str
    levels: int | None = None
    content: str | None = None
    latents: str | None = None
    vocabulary: tuple[str, ...] | None = None

    @classmethod
    def of_images(cls, channels: int, image_size: int, num_classes: int | None, content: str | None = None) -> Self:
        """The spec of square images of bytes."""
        from langevin.modalities.image import ImageModality  # here, so that what a spec is does not import torch

        return cls((channels, image_size, image_size), num_classes, ImageModality.path(), ImageModality.levels, content)

    @property
    def channels(self) -> int:
        """The channels of a sample: the length of its first axis."""
        return self.shape[0]

    @property
    def image_size(self) -> int | None:
        """The side of a square image, or of a latent of one; None of other samples."""
        return self.shape[1] if len(self.shape) == 3 and self.shape[1] == self.shape[2] else None

    @classmethod
    def read(cls, values: Any) -> Self:
        """Parse what `plain` gave, from an untrusted file.

        Raises:
            ValueError: when it is anything else.
        """
        if not isinstance(values, Mapping):
            raise ValueError("is no mapping")
        try:
            spec = cls(**values)
        except TypeError as error:
            raise ValueError(f"has other entries than Langevin's ({str(error).partition(' ')[2]})") from error
        if not isinstance(spec.shape, list | tuple) or not 1 <= len(spec.shape) <= 4:
            raise ValueError(f"has shape {spec.shape!r}; allowed: 1 to 4 whole numbers")
        numbers = [("shape", size) for size in spec.shape]
        numbers += [(name, getattr(spec, name)) for name in ("num_classes", "levels")]
        for name, number in numbers:
            if (name == "shape" or number is not None) and (type(number) is not int or number < 1):
                none = "" if name == "shape" else ", or none"
                raise ValueError(f"has {name} {number!r}; allowed: a whole number from 1 up{none}")
        if not isinstance(spec.modality, str):
            raise ValueError(f"has modality {spec.modality!r}; allowed: the path of a class")
        if not isinstance(spec.content, str | None):
            raise ValueError(f"has content {spec.content!r}; allowed: a digest, or none")
        words = spec.vocabulary
        if words is not None:
            if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
                raise ValueError(f"has vocabulary {str(words)[:40]!r}; allowed: a list of words, or none")
            words = tuple(words)
        return cls(tuple(spec.shape), spec.num_classes, spec.modality, spec.levels, spec.content, vocabulary=words)

    def plain(self) -> dict[str, Any]:
        """As plain values; nothing where the content is not known, it is not of latents, or there are no captions."""
        values = asdict(self) | {"shape": list(self.shape)}
        if self.vocabulary is not None:
            values["vocabulary"] = list(self.vocabulary)
        known = ("content", "latents", "vocabulary")
        return {name: value for name, value in values.items() if name not in known or value is not None}
