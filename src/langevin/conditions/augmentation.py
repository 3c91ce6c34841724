"""How a sample was transformed at random in training: augmentation that does not leak into what is sampled."""

import math
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from langevin.conditions.condition import Condition, ConditioningDraws, Context
from langevin.errors import OptionError, UserError
from langevin.networks.initialization import zero
from langevin.warping import warp

COLUMN = "augmentation"
"""The column: (B, number of labels), zeros for a sample as it is."""
NUMBERS = 14
"""How many random numbers a sample takes."""
LABELS = (1, 1, 1, 2, 2, 2)
"""How many labels the kinds have, in the order of the options."""
AT_ANY_ANGLE = 0.5
"""The share of stretched images whose axis is at any angle."""


class Drawn(NamedTuple):
    """How images are transformed, in this order; zeros where one is not.

    Attributes:
        mirrored: left to right (B,), 0 or 1.
        upended: top to bottom (B,), 0 or 1.
        scale: the logarithm of the enlargement, in standard deviations (B,).
        angle: of the rotation, counterclockwise, in radians (B,).
        stretch: the logarithm of the stretch along an axis, in standard deviations (B,).
        axis: the angle of that axis, counterclockwise from the one to the right, in radians (B,).
        shift: to the right and downwards, in standard deviations (B, 2).
    """

    mirrored: Tensor
    upended: Tensor
    scale: Tensor
    angle: Tensor
    stretch: Tensor
    axis: Tensor
    shift: Tensor


class Augmentation(Condition):
    """Images are transformed at random in training, and labels tell the network how: so nothing of it is sampled.

    The labels go through one linear layer without a bias, whose weights start at zero, to the network's vector. In
    sampling, in validations and in evaluations they are zero, as of an image that is left as it is. What other
    conditions compute of images, they compute of the transformed ones.

    Each kind of transformation happens to an image with `probability`, independently of the others, but for mirroring.
    The strength 0 leaves a kind out, and its labels.

    Source: EDM (Karras et al. 2022, arXiv 2206.00364), appendix F.2, and the code published with it, whose labels these
    are, in its order. They do not tell a stretch along an axis from a squeeze along the opposite one.

    Args:
        probability: of each kind.
        flip_x: the probability of mirroring left to right. Label: 1 where mirrored.
        flip_y: the same top to bottom, of the images to which that happens. Label: likewise.
        scale: the standard deviation of the logarithm to base 2 of an enlargement. Label: the logarithm, in units of
            this.
        rotation: the largest angle, in half turns; it is uniform up to this, either way. Labels: ``cos - 1`` and
            ``sin``.
        anisotropy: the standard deviation of the logarithm to base 2 of a stretch along an axis, whose inverse is taken
            across it. The axis is the one to the right for half of these images, at a uniform angle for the others.
            Labels: the logarithm, in units of this, times the cosine and the sine of that angle.
        translation: the standard deviation of a shift, in sides of the image. Labels: the shift to the right and
            downwards, in units of this.
        image_size: the side of the images; handed in.
        dim: the size of the network's vectors; handed in.

    Raises:
        OptionError: when every kind is left out.
    """

    inputs = transformed = frozenset({COLUMN})

    def __init__(
        self,
        probability: Annotated[float, Ge(0), Le(1)],
        flip_x: Annotated[float, Ge(0), Le(1)],
        flip_y: Annotated[float, Ge(0), Le(1)],
        scale: Annotated[float, Ge(0)],
        rotation: Annotated[float, Ge(0), Le(1)],
        anisotropy: Annotated[float, Ge(0)],
        translation: Annotated[float, Ge(0)],
        image_size: int,
        dim: int,
    ) -> None:
        super().__init__()
        self.probability = probability
        self.flip_x = flip_x
        self.flip_y = flip_y
        self.scale = scale
        self.rotation = rotation
        self.anisotropy = anisotropy
        self.translation = translation
        self.image_size = image_size
        strengths = (flip_x, flip_y, scale, rotation, anisotropy, translation)
        self.told = tuple(strength > 0 for strength, count in zip(strengths, LABELS, strict=True) for _ in range(count))
        if not any(self.told):
            raise OptionError(
                "flip_x", "is 0, as are all others, so that images stay as they are; leave augmentation out"
            )
        self.embed = zero(nn.Linear(sum(self.told), dim, bias=False))

    @property
    def mirrors(self) -> bool:
        """See `Condition`."""
        return self.flip_x > 0

    @property
    def has_null(self) -> bool:
        """See `Condition`: it has none, since in sampling there is nothing to tell."""
        return False

    def sampled(self) -> None:
        """See `Condition`: nothing is left of it."""
        return

    def transform(self, x: Tensor, draws: ConditioningDraws) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Condition`."""
        drawn = self.draw(draws)
        return self.applied(x, drawn), {COLUMN: self.labels(drawn)}

    def draw(self, draws: ConditioningDraws) -> Drawn:
        """How images with these random numbers are transformed."""
        normal = draws.normal((NUMBERS,))
        z, u = normal.unbind(1), torch.special.ndtr(normal).unbind(1)

        def happens(place: int, strength: float) -> Tensor:
            return u[place] <= (self.probability if strength > 0 else 0)  # these are above 0, and may be 1 by rounding

        stretched = happens(8, self.anisotropy)
        return Drawn(
            mirrored=(u[0] <= self.flip_x).float(),
            upended=((u[1] <= self.flip_y) & happens(2, self.flip_y)).float(),
            scale=z[3] * happens(4, self.scale),
            angle=math.pi * self.rotation * (2 * u[5] - 1) * happens(6, self.rotation),
            stretch=z[7] * stretched,
            axis=math.pi * (2 * u[9] - 1) * (stretched & (u[10] < AT_ANY_ANGLE)),
            shift=normal[:, 11:13] * happens(13, self.translation)[:, None],
        )

    def labels(self, drawn: Drawn) -> Tensor:
        """What tells the network of it: float32 (B, number of labels)."""
        mirrored, upended, scale, angle, stretch, axis, shift = drawn
        rotation, anisotropy = (angle.cos() - 1, angle.sin()), (stretch * axis.cos(), stretch * axis.sin())
        columns = mirrored, upended, scale, *rotation, *anisotropy, *shift.unbind(1)
        return torch.stack([column for column, told in zip(columns, self.told, strict=True) if told], 1)

    def applied(self, x: Tensor, drawn: Drawn) -> Tensor:
        """Images (B, C, H, W) transformed; those that are only flipped are resampled nowhere."""
        for flipped, axis in ((drawn.mirrored, -1), (drawn.upended, -2)):
            x = torch.where(flipped.reshape(-1, 1, 1, 1) > 0, x.flip(axis), x)
        inverse = self.inverse(drawn)
        moved = (inverse != torch.eye(2, 3, device=x.device)).any(2).any(1)
        return torch.where(moved.reshape(-1, 1, 1, 1), warp(x, inverse), x)

    def inverse(self, drawn: Drawn) -> Tensor:
        """The maps (B, 2, 3) of `langevin.warping.warp`, without the flips.

        Of a place they take back the shift first, then the stretch, the rotation and the enlargement.
        """
        along, across = (torch.exp2(sign * self.anisotropy * drawn.stretch) for sign in (-1, 1))
        cos, sin = drawn.axis.cos(), drawn.axis.sin()
        # A symmetric matrix, R(-axis) diag(along, across) R(axis), element by element: a matrix product may round more.
        first, second = along * cos * cos + across * sin * sin, along * sin * sin + across * cos * cos
        mixed = (across - along) * cos * sin
        cos, sin = drawn.angle.cos(), drawn.angle.sin()
        x = torch.stack([cos * first - sin * mixed, cos * mixed - sin * second], 1)
        y = torch.stack([sin * first + cos * mixed, sin * mixed + cos * second], 1)
        linear = torch.stack([x, y], 1) * torch.exp2(-self.scale * drawn.scale)[:, None, None]
        offset = -(linear * (self.translation * self.image_size * drawn.shift)[:, None]).sum(2, keepdim=True)
        return torch.cat([linear, offset], 2)

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        """See `Condition`; without labels they are zero.

        Raises:
            UserError: when there are more or fewer labels.
        """
        weight, shape = self.embed.weight, (batch, self.embed.in_features)
        label = (cond or {}).get(COLUMN)
        if label is None:
            label = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        if label.shape != shape:
            raise UserError(f"augmentation: the shape {tuple(label.shape)} does not fit: {shape}")
        return Context(vector=self.embed(label.to(weight)))

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Condition`: as it is."""
        return dict(cond)
