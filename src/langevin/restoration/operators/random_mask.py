"""Unknown pixels here and there."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from langevin.restoration.operators.masking import Masking


class RandomMask(Masking):
    """Pixels drawn at random are unknown: the same for all samples, and in all of their channels.

    Args:
        share: of the pixels that are unknown, to the next pixel.
        seed: which pixels; another seed, another mask.
    """

    def __init__(self, share: Annotated[float, Gt(0), Lt(1)] = 0.5, seed: Annotated[int, Ge(0)] = 0) -> None:
        super().__init__()
        self.share, self.seed = share, seed

    def unknown(self, height: int, width: int) -> Tensor:
        """See `Masking`."""
        order = torch.randperm(height * width, generator=torch.Generator().manual_seed(self.seed))
        return (order < round(self.share * height * width)).reshape(height, width)
