"""Smaller images, each of their pixels the mean of a square."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from torch.nn import functional

from langevin.restoration.operators.factor import divided
from langevin.restoration.operators.operator import DiagonalOperator


class Average(DiagonalOperator):
    """Each pixel of the measurement is the mean of a square of pixels, channel by channel.

    ``A A^T = I / factor^2``. It is DDNM's super-resolution (Wang et al. 2023, section 3.2).

    Args:
        factor: the side of the square; must divide the images' sides.
    """

    def __init__(self, factor: Annotated[int, Ge(2)] = 4) -> None:
        self.factor = factor

    @property
    def square(self) -> float:
        """See `Operator`."""
        return 1 / self.factor**2

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `Operator`."""
        return divided(shape, self.factor)

    def __call__(self, x: Tensor) -> Tensor:
        """See `Operator`."""
        return functional.avg_pool2d(x, self.factor)

    def adjoint(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `Operator`."""
        spread = y.repeat_interleave(self.factor, dim=-2).repeat_interleave(self.factor, dim=-1)
        return spread * self.square

    def eigenvalues(self, y: Tensor, shape: tuple[int, ...]) -> float:
        """See `DiagonalOperator`."""
        return self.square
