"""An unknown rectangle."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from langevin.errors import OptionError
from langevin.restoration.operators.masking import Masking


class BoxMask(Masking):
    """A rectangle is unknown, all around it is known. Lengths are fractions of the images' sides, to the next pixel.

    Args:
        height: of the rectangle.
        width: likewise.
        top: how far its upper edge is from the image's; None: it is centred.
        left: how far its left edge is from the image's; None: it is centred.

    Raises:
        OptionError: when it reaches beyond the image.
    """

    def __init__(
        self,
        height: Annotated[float, Gt(0), Le(1)] = 0.5,
        width: Annotated[float, Gt(0), Le(1)] = 0.5,
        top: Annotated[float, Ge(0), Lt(1)] | None = None,
        left: Annotated[float, Ge(0), Lt(1)] | None = None,
    ) -> None:
        super().__init__()
        for name, start, side, length in (("top", top, "height", height), ("left", left, "width", width)):
            if start is not None and start + length > 1 + 1e-9:  # 0.9 + 0.1 may round to more than 1
                raise OptionError(name, f"is {start}; allowed: at most 1 - {side} ({1 - length:g})")
        self.height, self.width, self.top, self.left = height, width, top, left

    def unknown(self, height: int, width: int) -> Tensor:
        """See `Masking`."""
        rows = _interval("height", self.height, self.top, height)
        columns = _interval("width", self.width, self.left, width)
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[rows, columns] = True
        return mask


def _interval(name: str, length: float, start: float | None, pixels: int) -> slice:
    """The pixels along a side of so many that an interval covers, which may be shifted by half a pixel.

    Raises:
        OptionError: when it covers none.
    """
    number = round(length * pixels)
    if number == 0:
        raise OptionError(name, f"is {length}, which is no pixel of {pixels}; allowed: such as {1 / pixels:.3g}")
    first = (pixels - number) // 2 if start is None else min(round(start * pixels), pixels - number)
    return slice(first, first + number)
