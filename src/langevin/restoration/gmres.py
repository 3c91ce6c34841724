"""The generalised minimal residual method, for each sample of a batch by itself."""

from collections.abc import Callable

import torch
from torch import Tensor

TINY = 1e-30
"""Below this a vector is nothing, whose direction does not matter."""
ROUNDING = 10
"""Singular values below this many rounding errors of the largest count as 0."""


def gmres(apply: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """The z with the least ``|b - M z|`` among the combinations of b, M b, M^2 b, ..., for each sample by itself.

    M need be neither symmetric nor positive: where it is not quite, as with a network's Jacobian, conjugate gradients
    diverge. Of a singular M and b in its range, z has nothing outside of that. Source: Saad and Schultz 1986.

    Args:
        apply: multiplies a batch (B, ...) by M, which acts on each sample by itself.
        b: (B, ...).
        iterations: how many combine, each at the cost of one `apply`.

    Returns:
        z (B, ...).
    """
    flat = b.flatten(1)
    size = flat.norm(dim=1, keepdim=True)
    basis = [flat / size.clamp(min=TINY)]
    image = b.new_zeros(len(b), iterations + 1, iterations)  # of the basis, in the basis
    for step in range(iterations):
        following = apply(basis[step].reshape(b.shape)).flatten(1)
        for index, direction in enumerate(basis):
            image[:, index, step] = (direction * following).sum(1)
            following = following - image[:, index, step, None] * direction
        image[:, step + 1, step] = following.norm(dim=1)
        basis.append(following / image[:, step + 1, step, None].clamp(min=TINY))
    weights = torch.linalg.pinv(image, rtol=ROUNDING * torch.finfo(b.dtype).eps)[:, :, :1] * size[:, :, None]
    return (torch.stack(basis[:-1], dim=2) @ weights)[:, :, 0].reshape(b.shape)
