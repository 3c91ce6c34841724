"""Linear systems without a closed form."""

from collections.abc import Callable

import torch
from torch import Tensor

ROUNDING = 10
"""A sample is solved when its residual is below this many rounding errors of its right-hand side."""
MOST_STEPS = 1000
"""For a system so ill-conditioned that rounding keeps the residual from falling that low."""


def conjugate_gradients(apply: Callable[[Tensor], Tensor], b: Tensor, most_steps: int = MOST_STEPS) -> Tensor:
    """Solve ``M z = b`` for each sample by itself.

    Each sample has step sizes of its own and stops by itself, so that its result does not depend on the others in the
    batch. Of a singular M, z is the shortest solution. Source: Hestenes and Stiefel 1952.

    Args:
        apply: M, symmetric and positive semi-definite, of a batch (B, ...) shaped like `b`.
        b: (B, ...), in the range of M.
        most_steps: where a sample stops if it is not solved by then.

    Returns:
        z (B, ...).
    """
    axes = tuple(range(1, b.ndim))

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum(axes, keepdim=True)

    z, residual, direction = torch.zeros_like(b), b, b
    square = dot(b, b)
    least = square * (ROUNDING * torch.finfo(b.dtype).eps) ** 2
    active = square > least
    for _ in range(most_steps):
        if not active.any():
            break
        image = apply(direction)
        curvature = dot(direction, image)
        active = active & (curvature > 0)
        step = torch.where(active, square / curvature, 0)
        z = z + step * direction
        residual = residual - step * image
        following = dot(residual, residual)
        direction = residual + torch.where(active, following / square, 0) * direction
        square = torch.where(active, following, square)
        active = active & (square > least)
    return z
