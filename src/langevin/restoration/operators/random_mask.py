"""Unknown pixels here and there."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from langevin.errors import OptionError
from langevin.restoration.operators.masking import Masking


class RandomMask(Masking):
    """Pixels drawn at random are unknown: the same for all samples, and in all of their channels.

    Args:
        share: of the pixels that are unknown, to the next pixel.
        seed: which pixels; another seed, another mask.

    Raises:
        OptionError: when all pixels are known, or none, of images of a size.
    """

    def __init__(self, share: Annotated[float, Gt(0), Lt(1)] = 0.5, seed: Annotated[int, Ge(0)] = 0) -> None:
        super().__init__()
        self.share, self.seed = share, seed

    def unknown(self, height: int, width: int) -> Tensor:
        """See `Masking`."""
        pixels = height * width
        number = round(self.share * pixels)
        if not 0 < number < pixels:
            text = f"is {self.share}, which is {number} of {pixels} pixels; allowed: 1 to {pixels - 1} of them"
            raise OptionError("share", text)
        order = torch.randperm(pixels, generator=torch.Generator().manual_seed(self.seed))
        return (order < number).reshape(height, width)
