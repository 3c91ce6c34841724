"""Smaller images, by the usual way of making them."""

import functools
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional

from langevin.restoration.operators.factor import divided
from langevin.restoration.operators.operator import DiagonalOperator


class Bicubic(DiagonalOperator):
    """Bicubic resizing with antialiasing, as of Pillow and of torch's `interpolate` with `antialias=True`.

    It acts on each axis by a matrix R, (h, H) or (w, W), of which ``R R^T`` is diagonalised once.

    Args:
        factor: how many times smaller the measurement is; must divide the images' sides.
    """

    def __init__(self, factor: Annotated[int, Ge(2)] = 4) -> None:
        self.factor = factor

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `Operator`."""
        return divided(shape, self.factor)

    def __call__(self, x: Tensor) -> Tensor:
        """See `Operator`."""
        rows, columns = (_resizing(side, self.factor, x.dtype, x.device) for side in x.shape[-2:])
        return rows @ x @ columns.T

    def adjoint(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `Operator`."""
        rows, columns = (_resizing(side, self.factor, y.dtype, y.device) for side in shape[-2:])
        return rows.T @ y @ columns

    def eigenvalues(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `DiagonalOperator`: the products of those of the axes."""
        (rows, _), (columns, _) = (_diagonalised(side, self.factor, y.dtype, y.device) for side in shape[-2:])
        return rows[:, None] * columns

    def to_basis(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `DiagonalOperator`."""
        (_, rows), (_, columns) = (_diagonalised(side, self.factor, y.dtype, y.device) for side in shape[-2:])
        return rows.T @ y @ columns

    def from_basis(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `DiagonalOperator`."""
        (_, rows), (_, columns) = (_diagonalised(side, self.factor, y.dtype, y.device) for side in shape[-2:])
        return rows @ y @ columns.T


@functools.lru_cache
@torch.inference_mode(False)  # what is kept may be used with and without gradients
def _resizing(side: int, factor: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix R (side / factor, side): what torch makes of the columns of the identity."""
    # As one image, whose width is kept: of images one pixel wide, torch 2.14 resizes the height wrongly.
    identity = torch.eye(side, dtype=torch.float64)[None, None]
    smaller = (side // factor, side)
    resized = functional.interpolate(identity, size=smaller, mode="bicubic", antialias=True, align_corners=False)
    return resized[0, 0].to(device, dtype)


@functools.lru_cache
@torch.inference_mode(False)
def _diagonalised(side: int, factor: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The eigenvalues (n,) and the eigenvectors, the columns of (n, n), of ``R R^T``, n = side / factor."""
    resizing = _resizing(side, factor, torch.float64, torch.device("cpu"))
    values, vectors = torch.linalg.eigh(resizing @ resizing.T)
    return values.to(device, dtype), vectors.to(device, dtype)
