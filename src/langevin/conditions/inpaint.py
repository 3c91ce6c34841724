"""The known part of each sample, around which the network makes the rest: inpainting."""

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from langevin.conditions.condition import Condition, ConditioningDraws, Context
from langevin.errors import UserError

COLUMN = "inpaint"
"""The column: (B, C + 1, H, W), the sample where it is known, 0 elsewhere; then 1 where it is known, 0 elsewhere."""
BOXES, HALVES = 0.5, 0.25
"""The shares of random masks that are boxes, and halves; the others are brush strokes."""
SIDES = (0.25, 0.75)
"""The sides of a box, in units of the image's: drawn between these."""
RADII = (0.05, 0.15)
"""Half the width of a brush stroke, likewise."""
POINTS = 5
"""The corners of the path of a brush stroke."""
NUMBERS = 6 + 2 * POINTS
"""How many uniform numbers a mask is made of."""


class Inpaint(Condition):
    """The known pixels and where they are, concatenated with x: ``(x * known, known)``, C + 1 channels.

    In training the mask is random, see `random_masks`. In sampling it is given, and the known pixels of the finished
    samples are those that were given. Classifier-free guidance compares with the same known pixels, unless they may be
    dropped.

    Source: the inputs of GLIDE's inpainting model (Nichol et al. 2021, arXiv 2112.10741, section 2.4) and Palette
    (Saharia et al. 2022, arXiv 2111.05826).

    Args:
        dropout: probability that a whole sample is unknown in training; 0: guidance keeps what is known.
        in_channels: the channels of a sample; handed in.
        image_size: the side of a sample; handed in.
    """

    inputs = derived = frozenset({COLUMN})

    def __init__(self, dropout: Annotated[float, Ge(0), Le(1)], in_channels: int, image_size: int) -> None:
        super().__init__()
        self.dropout = dropout
        self.image_size = image_size
        self.concat_channels = in_channels + 1

    @property
    def has_null(self) -> bool:
        """Whether its null value, nothing known, takes part in guidance: only where training has it."""
        return self.has_dropout

    def derive(self, x: Tensor, draws: ConditioningDraws, sampling: bool = False) -> dict[str, Tensor]:
        """See `Condition`: with random masks."""
        return {COLUMN: known_part(x, ~random_masks(draws, x.shape[2], x.shape[3]))}

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        """See `Condition`; without any, nothing is known.

        Raises:
            UserError: when the known part is of another size.
        """
        shape = (batch, self.concat_channels, self.image_size, self.image_size)
        if cond is None:
            return Context(concat=torch.zeros(shape))
        if cond[COLUMN].shape != shape:
            raise UserError(f"inpaint: the shape {tuple(cond[COLUMN].shape)} does not fit: {shape}")
        return Context(concat=cond[COLUMN])

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Condition`: nothing is known; it stays where it is never dropped."""
        return {**cond, COLUMN: torch.zeros_like(cond[COLUMN])} if self.has_null else dict(cond)

    def finish(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """See `Condition`: the known pixels are pasted."""
        image, known = cond[COLUMN].to(x).split([x.shape[1], 1], dim=1)
        return torch.where(known > 0, image, x)


def known_part(x: Tensor, known: Tensor) -> Tensor:
    """The column of images (B, C, H, W), of which the pixels `known` (B or 1, 1, H, W) are known."""
    known = known.expand(len(x), -1, -1, -1)
    return torch.cat([torch.where(known, x, 0), known.to(x)], dim=1)


def random_masks(draws: ConditioningDraws, height: int, width: int) -> Tensor:
    """A random mask for each sample: bool (B, 1, H, W), true where it is unknown.

    Of one half of the samples it is a box, each of whose sides is uniform in [0.25, 0.75) of the image's, at a uniform
    place within the image. Of a quarter it is one half of the image: left, right, upper or lower. Of the others it is a
    brush stroke: all within a distance, uniform in [0.05, 0.15) of the image's side, of a path through five uniform
    points.

    Args:
        draws: their random numbers.
        height: H.
        width: W.
    """
    u = torch.special.ndtr(draws.normal((NUMBERS,)))  # uniform numbers, all in one call
    kind, tall, wide, top, left, radius = u[:, :6].unbind(1)
    is_half = (kind >= BOXES) & (kind < BOXES + HALVES)
    low, high = SIDES
    tall, wide = (low + (high - low) * side for side in (tall, wide))
    # A half is a box as well: of half of the height or of the width, at one end.
    lies, first = left < 0.5, (top < 0.5).float()
    tall, wide = (
        torch.where(is_half, torch.where(across, 0.5, 1.0), side) for across, side in ((lies, tall), (~lies, wide))
    )
    top, left = (torch.where(is_half, first, place) for place in (top, left))
    y, x = (
        ((torch.arange(number, device=u.device) + 0.5) / number).reshape(shape)
        for number, shape in ((height, (1, -1, 1)), (width, (1, 1, -1)))
    )
    box = _within(y, top * (1 - tall), tall) & _within(x, left * (1 - wide), wide)
    low, high = RADII
    stroke = _distance(y, x, u[:, 6:].unflatten(1, (POINTS, 2))) < _column(low + (high - low) * radius)
    return torch.where(_column(kind < BOXES + HALVES), box, stroke)[:, None]


def _column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1)


def _within(place: Tensor, start: Tensor, length: Tensor) -> Tensor:
    return (place >= _column(start)) & (place < _column(start + length))


def _distance(y: Tensor, x: Tensor, points: Tensor) -> Tensor:
    """The distance (B, H, W) of places, (1, H, 1) and (1, 1, W), to paths through points (B, N, 2)."""
    nearest = torch.full((), torch.inf, device=points.device)
    for start, end in zip(points.unbind(1)[:-1], points.unbind(1)[1:], strict=True):
        (y0, x0), (dy, dx) = (each.reshape(-1, 2, 1, 1).unbind(1) for each in (start, end - start))
        along = ((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx).clamp_min(torch.finfo(torch.float32).tiny)
        along = along.clamp(0, 1)
        nearest = torch.minimum(nearest, torch.hypot(y - y0 - along * dy, x - x0 - along * dx))
    return nearest
