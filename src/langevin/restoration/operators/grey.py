"""Images without colour."""

import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.images import LUMA
from langevin.restoration.operators.operator import DiagonalOperator, sides


class Grey(DiagonalOperator):
    """The grey levels (1, H, W) of RGB images: their luma, as files in colour become grey wherever Pillow does it.

    DDNM's colourisation takes the mean of the channels instead.
    """

    @property
    def square(self) -> float:
        """See `Operator`."""
        return sum(weight**2 for weight in LUMA)

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `Operator`."""
        height, width = sides(shape)
        if shape[0] != len(LUMA):
            raise UserError(f"measures RGB images (3, H, W), and these are of shape {shape}")
        return 1, height, width

    def __call__(self, x: Tensor) -> Tensor:
        """See `Operator`."""
        return (x * self._weights(x)).sum(1, keepdim=True)

    def adjoint(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `Operator`."""
        return y * self._weights(y)

    def eigenvalues(self, y: Tensor, shape: tuple[int, ...]) -> float:
        """See `DiagonalOperator`."""
        return self.square

    @staticmethod
    def _weights(like: Tensor) -> Tensor:
        return torch.tensor(LUMA, dtype=like.dtype, device=like.device)[:, None, None]
