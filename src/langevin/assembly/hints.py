"""The hints that `langevin sample` gives a model that follows them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from langevin.assembly.saved import Model
from langevin.conditions.hint import Hint
from langevin.config.validate import ConfigError, Mistake
from langevin.data.read_images import read_images
from langevin.images import LUMA
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.hint import HintRequests


class HintImages(NamedTuple):
    """Hints, or images of which they are computed.

    Attributes:
        samples: uint8 (N, H, W, C).
        labels: int64 (N,), or None.
        condition: the model's.
        computed: whether it is to compute hints of them; else they are hints.
        scale: a factor on their effect.
    """

    samples: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    condition: Hint
    computed: bool
    scale: float

    def requested_of(self, generator: SamplePipeline) -> None:
        """Let a pipeline follow them: sample i has the i-th hint."""
        asked, modality = generator.requests, generator.modality
        generator.requests = HintRequests(asked, self.samples, self.condition, modality, self.computed, self.scale)


def open_hints(cfg: DictConfig, model: Model) -> HintImages | None:
    """The hints of a sampling config; None of a model that takes none.

    Raises:
        UserError: when they are missing, given to a model that takes none, or of another size than the model's.
    """
    given = [name for name in ("images", "hints") if cfg.hint[name] is not None]
    scale: float = cfg.hint.scale
    condition = next((part for part in model.denoiser.network.modules() if isinstance(part, Hint)), None)
    if condition is None:
        text = "the model is not trained with conditions=[hint]; leave it out"
        given += ["scale"] if scale != 1 else []
        if given:
            raise ConfigError([Mistake(f"hint.{name}", f"is {cfg.hint[name]}; {text}") for name in given])
        return None
    if scale != 1 and getattr(model.denoiser.network, "adapter", None) is None:
        text = f"is {scale}; allowed: 1, since the model was not trained with model.control=true"
        raise ConfigError([Mistake("hint.scale", text)])
    if not condition.derived:
        if cfg.hint.images is not None:
            text = f"is {cfg.hint.images}; the model's hints are not computed of images (conditions.hint.kind="
            raise ConfigError([Mistake("hint.images", f"{text}{condition.kind}); give hint.hints")])
        if not given:
            text = "must be given: hints (.npz, folder or zip) like those beside the images of the training data"
            raise ConfigError([Mistake("hint.hints", text)])
    if not given:
        kind = (
            f"images (.npz, folder or zip) whose {condition.kind} the samples are to have, or hint.hints in its place"
        )
        raise ConfigError([Mistake("hint.images", f"must be given: {kind}")])
    [name] = given
    channels, *size = model.spec.shape
    allowed = [(*size, channels)] if name == "images" else [(*size, 1), (*size, len(LUMA))]
    images, labels = read_images(cfg.hint[name], f"hint.{name}", hints=name == "hints")
    if images.shape[1:] not in allowed:
        text = f"is {cfg.hint[name]}: images of (height, width, channels) {images.shape[1:]}"
        raise ConfigError([Mistake(f"hint.{name}", f"{text}; allowed: {' or '.join(map(str, allowed))}")])
    return HintImages(images, labels, condition, name == "images", scale)
