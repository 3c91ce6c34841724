"""The images and the mask that `langevin sample` gives an inpainting model."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from langevin.assembly.saved import Model
from langevin.conditions.inpaint import Inpaint
from langevin.config.validate import ConfigError, Mistake
from langevin.data.read_images import read_images
from langevin.errors import OptionError
from langevin.restoration.operators.mask import FileMask
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.inpaint import InpaintRequests


class InpaintImages(NamedTuple):
    """Images of which a part is to be made anew.

    Attributes:
        samples: uint8 (N, H, W, C).
        labels: int64 (N,), or None.
        unknown: that part, bool (H, W).
        mask: what the mask is, as plain values for a protocol.
    """

    samples: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    unknown: Tensor
    mask: Mapping[str, Any]

    def requested_of(self, generator: SamplePipeline) -> None:
        """Let a pipeline make that part anew: sample i is made of the i-th image."""
        asked = generator.requests
        generator.requests = InpaintRequests(asked, self.samples, self.unknown, self.mask, generator.modality)


def open_inpaint(cfg: DictConfig, model: Model) -> InpaintImages | None:
    """The images and the mask of a sampling config; None of a model that takes none.

    Raises:
        UserError: when one is missing, given to a model that takes none, or of another size than the model's.
    """
    given = {name: cfg.inpaint[name] for name in ("images", "mask")}
    if not any(isinstance(part, Inpaint) for part in model.denoiser.network.modules()):
        text = "the model is not trained with conditions=[inpaint]; leave it out"
        if found := [Mistake(f"inpaint.{name}", f"is {value}; {text}") for name, value in given.items() if value]:
            raise ConfigError(found)
        return None
    wanted = {
        "images": "images (.npz, folder or zip) of which a part is to be made anew",
        "mask": "a PNG of their size, black where they are known, white where they are to be made anew",
    }
    if lacking := [Mistake(f"inpaint.{name}", f"must be given: {wanted[name]}") for name in given if not given[name]]:
        raise ConfigError(lacking)
    channels, *size = model.spec.shape
    try:
        mask = FileMask(given["mask"])
        unknown = mask.unknown(*size)
    except OptionError as error:
        raise ConfigError([Mistake("inpaint.mask", text) for _, text in error.found]) from error
    images, labels = read_images(given["images"], "inpaint.images")
    if images.shape[1:] != (*size, channels):
        text = f"is {given['images']}: images of (height, width, channels) {images.shape[1:]}"
        raise ConfigError([Mistake("inpaint.images", f"{text}; allowed: {(*size, channels)}, as the model's are")])
    return InpaintImages(images, labels, unknown, mask.record())
