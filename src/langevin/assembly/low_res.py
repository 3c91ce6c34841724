"""The small images that `langevin sample` gives a super-resolution model."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from langevin.assembly.saved import Model
from langevin.conditions.low_res import LowRes
from langevin.config.validate import ConfigError, Mistake
from langevin.data.read_images import read_images
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.low_res import LowResRequests
from langevin.samplers.truncated import Truncated


class SmallImages(NamedTuple):
    """Small images, of files or of the stage before.

    Attributes:
        samples: uint8 (N, size, size, C).
        labels: int64 (N,), or None.
        level: of the noise that is to be added to them, or that they have.
        noisy: with noise of that level in them, float32 (N, C, size, size); None: it is to be added.
    """

    samples: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    level: float
    noisy: NDArray[np.float32] | None = None


class LowResImages(NamedTuple):
    """Small images to be enlarged.

    Attributes:
        small: these.
        condition: the model's.
    """

    small: SmallImages
    condition: LowRes

    @property
    def samples(self) -> NDArray[np.uint8]:
        """The images, uint8 (N, size, size, C)."""
        return self.small.samples

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Their labels, int64 (N,), or None."""
        return self.small.labels

    def requested_of(self, generator: SamplePipeline) -> None:
        """Let a pipeline enlarge them: sample i is made of the i-th."""
        samples, labels, level, noisy = self.small
        asked, modality = generator.requests, generator.modality
        generator.requests = LowResRequests(asked, samples, labels, level, self.condition, modality, noisy)


class Link(NamedTuple):
    """What makes a model a stage of a cascade.

    Attributes:
        small: what the stage before has made; None of the first.
        truncated: where it stops, for the next; None: at the data.
    """

    small: SmallImages | None
    truncated: Truncated | None


UNLINKED = Link(None, None)


def low_res_of(model: Model) -> LowRes | None:
    """The condition by which a model enlarges small images; None where it has none."""
    return next((part for part in model.denoiser.network.modules() if isinstance(part, LowRes)), None)


def open_low_res(cfg: DictConfig, model: Model, small: SmallImages | None = None) -> LowResImages | None:
    """The small images of a sampling config; None of a model that takes none.

    Args:
        cfg: of the command.
        model: which enlarges them.
        small: what the stage before has made for this model; None: the config names images.

    Raises:
        UserError: when they are missing, given to a model that takes none, of another size than the model's, or are to
            be noisier than in its training.
    """
    images, level = cfg.low_res.images, cfg.low_res.noise_level
    condition = low_res_of(model)
    if small is not None and condition is not None:
        return LowResImages(small, condition)
    if condition is None:
        if images is not None:
            raise _mistake("images", f"is {images}; the model is not trained with conditions=[low_res]: leave it out")
        if level > 0:
            raise _mistake("noise_level", f"is {level}; allowed with low_res.images")
        return None
    side = condition.size
    if images is None:
        text = f"must be given: images of {side} x {side} pixels (.npz, folder or zip), which the model enlarges"
        raise _mistake("images", text)
    require_level(condition, level)
    stored, labels = read_images(images, "low_res.images")
    wanted = (side, side, condition.concat_channels)
    if stored.shape[1:] != wanted:
        kind = f"is {images}: images of (height, width, channels) {stored.shape[1:]}"
        raise _mistake("images", f"{kind}; allowed: {wanted}, which the model enlarges")
    return LowResImages(SmallImages(stored, labels, level), condition)


def require_level(condition: LowRes, level: float) -> None:
    """Check that a model was trained with small images as noisy as those that it is to be given.

    Raises:
        ConfigError: when it was not.
    """
    if condition.augmentation != "noise" and level > 0:
        text = f"is {level}; allowed: 0, since the model was trained with augmentation={condition.augmentation}"
        raise _mistake("noise_level", text)
    if level > condition.max_level:
        text = f"is {level}; allowed: 0 to {condition.max_level}, the largest that the model was trained with"
        raise _mistake("noise_level", text)


def _mistake(field: str, text: str) -> ConfigError:
    return ConfigError([Mistake(f"low_res.{field}", text)])
