"""An image that says what a sample is to look like, such as its edges: control by concatenation."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor
from torch.nn import functional

from langevin.conditions.condition import Condition, ConditioningDraws, Context
from langevin.errors import OptionError, UserError
from langevin.images import HINT, LUMA, from_file, to_file

COLUMN = HINT
"""The column: (B, C, H, W) in [0, 1], as the levels of a file; `NONE` everywhere for no hint."""
PAIRS = "pairs"
"""The kind of hints that are not computed, but come with the data."""
SCALE = "hint_scale"
"""A column of sampling alone: factors (B,) on the effect of the hints, for `Context.scale`."""
NONE = -1.0
"""What a hint is where there is none: no level, since black is a hint as well."""


class Hint(Condition):
    """An image of the sample's size, concatenated with x, which the sample is to agree with.

    In training it comes with the sample, or is computed of it and rounded to the 256 levels of a file, so that hints of
    files are like those of training. Hints are in [0, 1], as ControlNet's are (Zhang et al. 2023, arXiv 2302.05543),
    and not in [-1, 1] as samples.

    - "edges": the magnitude of Sobel's gradient, see `edges`.
    - "grey": the grey levels, so that the model colours them.
    - "pairs": the data supplies it, of any meaning.

    Classifier-free guidance compares with the same hint, unless it may be dropped.

    Args:
        kind: what it is computed as, "edges" or "grey"; or "pairs".
        threshold: of edges: those of at least this magnitude become 1, all else 0; None: they stay magnitudes.
        dropout: probability that there is none in training; 0: guidance keeps it.
        image_size: the side of what is diffused; handed in.
        channels: 1 for grey hints, 3 for those in colour; what is computed is then the same in all three.

    Raises:
        OptionError: when there is a threshold for other hints than edges, or hints of the data are to be in colour.
    """

    inputs = derived = frozenset({COLUMN})  # not derived of kind "pairs"

    def __init__(
        self,
        kind: Literal["edges", "grey", "pairs"],
        threshold: Annotated[float, Gt(0), Le(1)] | None,
        dropout: Annotated[float, Ge(0), Le(1)],
        image_size: int,
        channels: Literal[1, 3] = 1,
    ) -> None:
        super().__init__()
        if kind != "edges" and threshold is not None:
            raise OptionError("threshold", f"is {threshold}; allowed with kind={kind}: null, since it is of edges")
        if kind == PAIRS and channels != 1:
            raise OptionError("channels", f"is {channels}; allowed with kind={PAIRS}: 1, since they are kept in grey")
        self.kind = kind
        self.derived = self.derived_with({"kind": kind})
        self.threshold = threshold
        self.dropout = dropout
        self.image_size = image_size
        self.concat_channels = channels

    def enlarge(self, factor: int) -> None:
        """See `Condition`: of any size."""
        self.image_size *= factor

    @property
    def has_null(self) -> bool:
        """See `Condition`: only where it is dropped in training."""
        return self.has_dropout

    @classmethod
    def derived_with(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """See `Condition`: nothing where hints come with the data."""
        return frozenset() if options.get("kind") == PAIRS else cls.derived

    def derive(self, x: Tensor, draws: ConditioningDraws, sampling: bool = False) -> dict[str, Tensor]:
        """See `Condition`: nothing about it is random."""
        return {COLUMN: self.hint(x)} if self.derived else {}

    def hint(self, x: Tensor) -> Tensor:
        """The hints (B, C', H, W) of images x (B, C, H, W) in [-1, 1]; only of a kind that is computed."""
        assert self.derived, self.kind
        levels = (grey(x) + 1) / 2
        if self.kind == "edges":
            levels = edges(levels)
            if self.threshold is not None:
                levels = (levels >= self.threshold).to(levels)
        return from_file(to_file(levels)).expand(-1, self.concat_channels, -1, -1)

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        """See `Condition`.

        Raises:
            UserError: when there are no hints, or they are of another size.
        """
        shape = (batch, self.concat_channels, self.image_size, self.image_size)
        if cond is None:
            if not self.has_null:
                raise UserError("hint: the model follows hints, and none were given")
            return Context(concat=torch.full(shape, NONE))
        if cond[COLUMN].shape != shape:
            raise UserError(f"hint: the shape {tuple(cond[COLUMN].shape)} does not fit: {shape}")
        return Context(concat=cond[COLUMN], scale=cond.get(SCALE))

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Condition`: no hint; it stays where it is never dropped."""
        return {**cond, COLUMN: torch.full_like(cond[COLUMN], NONE)} if self.has_null else dict(cond)


def grey(x: Tensor) -> Tensor:
    """Images (B, C, H, W) without colour, (B, 1, H, W): the luma of three channels, else the mean of all."""
    if x.shape[1] != len(LUMA):
        return x.mean(1, keepdim=True)
    return (x * torch.tensor(LUMA, dtype=x.dtype, device=x.device)[:, None, None]).sum(1, keepdim=True)


def edges(levels: Tensor) -> Tensor:
    """The magnitude of the gradient of levels (B, 1, H, W) in [0, 1] by Sobel's filters: likewise, in [0, 1].

    ``sqrt(dx^2 + dy^2)``, of differences across two pixels that are smoothed along the edge by (1, 2, 1) / 4. So a
    straight edge between black and white is 1; what is above at corners is cut off. Sides of the image are continued.
    """
    padded = functional.pad(levels, (1, 1, 1, 1), mode="replicate")
    return torch.hypot(*(_difference(_smoothed(padded, 5 - axis), axis) for axis in (2, 3))).clamp_max(1)


def _difference(values: Tensor, axis: int) -> Tensor:
    return values.narrow(axis, 2, values.shape[axis] - 2) - values.narrow(axis, 0, values.shape[axis] - 2)


def _smoothed(values: Tensor, axis: int) -> Tensor:
    before, here, after = (values.narrow(axis, start, values.shape[axis] - 2) for start in range(3))
    return (before + after + 2 * here) / 4  # in this order, so that a mirrored image has the mirrored edges to the bit
