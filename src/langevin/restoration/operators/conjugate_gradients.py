"""Linear systems without a closed form.

Each sample of a batch has step sizes of its own and stops by itself, so that its result does not depend on the others.
"""

from collections.abc import Callable

import torch
from torch import Tensor

ROUNDING = 10
"""A sample is solved when its residual is below this many rounding errors of what it was at first."""
MOST_STEPS = 1000
"""For a system so ill-conditioned that rounding keeps the residual from falling that low."""


def conjugate_gradients(apply: Callable[[Tensor], Tensor], b: Tensor, most_steps: int = MOST_STEPS) -> Tensor:
    """Solve ``M z = b`` for each sample. Source: Hestenes and Stiefel 1952.

    Args:
        apply: M, symmetric and positive semi-definite, of a batch (B, ...) shaped like `b`.
        b: (B, ...), in the range of M; of a singular M, z is then the shortest solution.
        most_steps: where a sample stops if it is not solved by then.

    Returns:
        z (B, ...).
    """
    z, residual, direction, square = torch.zeros_like(b), b, b, _dot(b, b)
    least = _rounded(square)
    active = square > least
    for _ in range(most_steps):
        if not active.any():
            break
        image = apply(direction)
        curvature = _dot(direction, image)
        active = active & (curvature > 0)
        step = torch.where(active, square / curvature, 0)
        z = z + step * direction
        residual = residual - step * image
        following = _dot(residual, residual)
        direction = residual + torch.where(active, following / square, 0) * direction
        square = torch.where(active, following, square)
        active = active & (square > least)
    return z


def least_squares(
    apply: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], y: Tensor, most_steps: int = MOST_STEPS
) -> Tensor:
    """The shortest x for which ``A x`` is nearest to y, ``A^+ y``, for each sample.

    Conjugate gradients of ``A^T A x = A^T y``, which keep the residual ``y - A x`` too: those of that system by itself
    lose half of the digits. Source: Hestenes and Stiefel 1952, section 10; CGLS in Paige and Saunders 1982.

    Args:
        apply: A, of a batch (B, ...).
        adjoint: A^T, of a batch shaped like `y`.
        y: (B, ...).
        most_steps: where a sample stops if it is not solved by then.

    Returns:
        x (B, ...), of the shape that `adjoint` gives.
    """
    gradient = adjoint(y)
    x, residual, direction, square = torch.zeros_like(gradient), y, gradient, _dot(gradient, gradient)
    least, least_residual = _rounded(square), _rounded(_dot(y, y))
    active = square > least
    for _ in range(most_steps):
        if not active.any():
            break
        image = apply(direction)
        curvature = _dot(image, image)
        active = active & (curvature > 0)
        step = torch.where(active, square / curvature, 0)
        x = x + step * direction
        residual = residual - step * image
        gradient = adjoint(residual)
        following = _dot(gradient, gradient)
        direction = gradient + torch.where(active, following / square, 0) * direction
        square = torch.where(active, following, square)
        active = active & (square > least) & (_dot(residual, residual) > least_residual)
    return x


def _dot(u: Tensor, v: Tensor) -> Tensor:
    """The product of each sample of u and v (B, ...), to multiply them: (B, 1, ...)."""
    return (u * v).sum(tuple(range(1, u.ndim)), keepdim=True)


def _rounded(square: Tensor) -> Tensor:
    return square * (ROUNDING * torch.finfo(square.dtype).eps) ** 2
