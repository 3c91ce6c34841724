"""A smaller image of each sample, which the network enlarges: super-resolution."""

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn import functional

from langevin.conditions.condition import Condition, ConditioningDraws, Context
from langevin.errors import OptionError, UserError
from langevin.images import from_uint8, to_uint8
from langevin.networks.embeddings import TimeEmbedding

IMAGE, LEVEL = "low_res", "low_res_level"
"""The columns: images (B, C, size, size) in [-1, 1], noise apart; and how noisy each is, (B,) in [0, 1]."""
FEATURES = 128
"""Of the level, before its linear layers."""
STEPS = 1000
"""What the level is multiplied by, so that its features are like those of a discrete time."""
BLUR = (0.4, 0.6)
"""The standard deviation of the blur in pixels of the small image, drawn between these."""


class LowRes(Condition):
    """A smaller image, enlarged bilinearly and concatenated with x: the model makes the large one (super-resolution).

    In training it is computed of the sample: the mean of each square of pixels, rounded to the 256 levels of a file, so
    that small images of files are like those of training. Where the small images of sampling are a model's, they are
    worse than those; then it helps to make those of training worse too (conditioning augmentation; Ho et al. 2022,
    "Cascaded diffusion models", arXiv 2106.15282, section 4):

    - "noise": ``sqrt(1 - s^2) z + s n`` of each image z, with ``s`` uniform in [0, max_level) and told to the network
      by an embedding of its own (Saharia et al. 2022, Imagen, arXiv 2205.11487). Sampling chooses s.
    - "blur": a Gaussian of 3x3 pixels, of a standard deviation uniform in [0.4, 0.6), for half of the images. Sampling
      has none.

    Classifier-free guidance compares with the same small image, unless it may be dropped.

    Sources: the enlarging, guided-diffusion's `SuperResModel` (Dhariwal & Nichol 2021), ``align_corners=False``.

    Args:
        size: the side of the small images, a divisor of the samples'; that of latents itself, which are smaller than
            the samples, and beside which an image of their size is taken as it is (Rombach et al. 2022, section 4.4).
        augmentation: what is done to them in training: "none", "noise" or "blur".
        max_level: for "noise", the largest s.
        blur_probability: for "blur", how often.
        dropout: probability that it is dropped in training, and zeros are seen; 0: guidance keeps it.
        in_channels: the channels of a sample; handed in.
        image_size: the side of what is diffused; handed in.
        dim: the size of the network's vectors; handed in.

    Raises:
        OptionError: when the sizes do not fit.
    """

    inputs = derived = frozenset({IMAGE})

    def __init__(
        self,
        size: Annotated[int, Ge(1)],
        augmentation: Literal["none", "noise", "blur"],
        max_level: Annotated[float, Ge(0), Le(1)],
        blur_probability: Annotated[float, Ge(0), Le(1)],
        dropout: Annotated[float, Ge(0), Le(1)],
        in_channels: int,
        image_size: int,
        dim: int,
    ) -> None:
        super().__init__()
        if size > image_size or image_size % size:
            fitting = ", ".join(str(side) for side in range(1, image_size) if image_size % side == 0)
            raise OptionError("size", f"is {size}; allowed: a divisor of the images' side {image_size}: {fitting}")
        self.size = size
        self.image_size = image_size
        self.concat_channels = in_channels
        self.augmentation = augmentation
        self.max_level = max_level
        self.blur_probability = blur_probability
        self.dropout = dropout
        self.level: TimeEmbedding | None = None
        if augmentation == "noise":
            self.inputs = self.derived = frozenset({IMAGE, LEVEL})
            self.level = TimeEmbedding(FEATURES, dim)

    @property
    def tells_all(self) -> bool:
        """See `Condition`: where it is no smaller than what is diffused."""
        return self.size == self.image_size

    @property
    def has_null(self) -> bool:
        """See `Condition`: only where it is dropped in training."""
        return self.has_dropout

    def derive(self, x: Tensor, draws: ConditioningDraws, sampling: bool = False) -> dict[str, Tensor]:
        """See `Condition`: for sampling, small images as they are."""
        small = shrunk(x, self.size)
        if self.augmentation == "noise":
            level = torch.zeros(len(x), device=x.device) if sampling else draws.uniform() * self.max_level
            return self.noised(small, level, draws)
        if self.augmentation == "blur" and not sampling:
            chosen = draws.uniform() < self.blur_probability
            low, high = BLUR
            blurred = blur(small, low + (high - low) * draws.uniform())
            small = torch.where(chosen.reshape(-1, 1, 1, 1), blurred, small)
        return {IMAGE: small}

    def noised(self, small: Tensor, level: Tensor, draws: ConditioningDraws) -> dict[str, Tensor]:
        """The columns of small images.

        Args:
            small: (B, C, size, size) in [-1, 1].
            level: s of each (B,), in [0, max_level]; all 0 but for augmentation="noise".
            draws: the images' random numbers.
        """
        if self.level is None:
            return {IMAGE: small}
        s = level.reshape(-1, 1, 1, 1)
        return {IMAGE: torch.sqrt(1 - s * s) * small + s * draws.normal(small.shape[1:]), LEVEL: level}

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        """See `Condition`.

        Raises:
            UserError: when there are none, or they are of another size.
        """
        shape = (batch, self.concat_channels, self.size, self.size)
        if cond is None:
            if not self.has_null:
                raise UserError("low_res: the model enlarges small images, and none were given")
            return Context(concat=self._enlarged(torch.zeros(shape)), vector=self._embedded(torch.zeros(batch)))
        small = cond[IMAGE]
        if small.shape != shape:
            raise UserError(f"low_res: the shape {tuple(small.shape)} does not fit: {shape}")
        return Context(concat=self._enlarged(small), vector=self._embedded(cond.get(LEVEL)))

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Condition`: zeros, which are grey; the level stays, as the image does where it is never dropped."""
        return {**cond, IMAGE: torch.zeros_like(cond[IMAGE])} if self.has_null else dict(cond)

    def _enlarged(self, small: Tensor) -> Tensor:
        return functional.interpolate(small, (self.image_size, self.image_size), mode="bilinear", align_corners=False)

    def _embedded(self, level: Tensor | None) -> Tensor | None:
        if self.level is None or level is None:
            return None
        return self.level(STEPS * level.to(self.level.linear1.weight.device))


def shrunk(x: Tensor, size: int) -> Tensor:
    """Images (B, C, H, H) in [-1, 1] at a side that divides H: means of squares, rounded to the levels of a file."""
    return from_uint8(to_uint8(functional.avg_pool2d(x, x.shape[-1] // size)))


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Images (B, C, H, W) under Gaussians of 3x3 pixels, their edges continued.

    Args:
        x: the images.
        sigma: the standard deviation of each, in pixels (B,).
    """
    side = torch.exp(-0.5 / (sigma * sigma)).reshape(-1, 1, 1, 1)
    for axis in (2, 3):
        padding = (0, 0, 1, 1) if axis == 2 else (1, 1, 0, 0)
        before, _, after = (
            functional.pad(x, padding, mode="replicate").narrow(axis, start, x.shape[axis]) for start in range(3)
        )
        x = (x + side * (before + after)) / (1 + 2 * side)
    return x
