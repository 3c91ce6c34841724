"""The interface of every linear operator."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from langevin.config.types import TARGET, path_of
from langevin.errors import UserError
from langevin.restoration.operators.conjugate_gradients import conjugate_gradients, least_squares


class Operator(ABC):
    """A linear map A from samples x (B, C, *size), model values in about [-1, 1], to measurements y (B, *measured).

    It acts on each sample by itself, and has no random numbers: of equal parameters, it is the same map. Its public
    attributes are its parameters.
    """

    @property
    def square(self) -> float | None:
        """The number c where ``A A^T = c I`` for samples of any size; None where it is no such map."""
        return None

    @abstractmethod
    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one measurement.

        Args:
            shape: (C, *size) of one sample.

        Raises:
            OptionError: when a parameter does not suit such samples.
            UserError: when no parameter could.
        """

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """``A x``: (B, *measured) of samples x (B, C, *size), which `measured` has found to suit it."""

    @abstractmethod
    def adjoint(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """``A^T y``: (B, C, *size) of y (B, *measured), `shape` being (C, *size)."""

    def solve(self, y: Tensor, shape: tuple[int, ...], prior: Tensor | float, noise: Tensor | float) -> Tensor:
        """``(prior A A^T + noise I)^+ y``.

        Here by conjugate gradients; where the noise is 0, by those of two problems of least squares, so that parts of y
        outside of the range of A give 0. Without noise, what A almost removes is restored as far as rounding allows,
        and errors of y with it: where A is ill-conditioned, give a noise.

        Args:
            y: (B, *measured).
            shape: (C, *size).
            prior: the variance of samples, at least 0: one, or one for each, (B,).
            noise: the variance of the measurement's noise, likewise.

        Returns:
            (B, *measured).
        """
        prior, noise = per_sample(prior, y), per_sample(noise, y)
        is_exact = noise == 0
        noisy = torch.where(is_exact, 0, y)  # samples of nothing but 0 are solved at once
        z = conjugate_gradients(lambda z: prior * self(self.adjoint(z, shape)) + noise * z, noisy)
        if is_exact.any():
            x = self.pseudo_inverse(torch.where(is_exact, y, 0), shape)
            exact = least_squares(lambda z: self.adjoint(z, shape), self, x)  # (A^T)^+ A^+ = (A A^T)^+
            z = torch.where(is_exact, torch.where(prior > 0, exact / prior, 0), z)
        return z

    def pseudo_inverse(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """``A^+ y``: the shortest of the x (B, C, *size) for which A x is nearest to y.

        Here by conjugate gradients; `solve` begins with it where there is no noise.
        """
        return least_squares(self, lambda z: self.adjoint(z, shape), y)

    def projected(self, x: Tensor, y: Tensor) -> Tensor:
        """The samples nearest to x (B, C, *size) of which y (B, *measured) is measured: ``x + A^+ (y - A x)``."""
        return x + self.pseudo_inverse(y - self(x), tuple(x.shape[1:]))

    def of_latents(self, shape: tuple[int, ...], latent: tuple[int, ...]) -> "Operator":
        """What is measured of latents of another shape where this is measured of their samples.

        Args:
            shape: (C, *size) of one sample.
            latent: (C', *size') of one latent.

        Raises:
            UserError: when that cannot be said.
        """
        raise UserError("measures samples, and it is not known what that is in latents")

    def record(self) -> dict[str, Any]:
        """What it is, as plain values for a protocol."""
        return {TARGET: path_of(type(self)), **{k: v for k, v in vars(self).items() if not k.startswith("_")}}


class DiagonalOperator(Operator):
    """An operator whose ``A A^T = Q diag(lambda) Q^T`` is known, Q being orthogonal: its systems are solved exactly."""

    @abstractmethod
    def eigenvalues(self, y: Tensor, shape: tuple[int, ...]) -> Tensor | float:
        """The lambda, at least 0, of the type and device of `y`, of a shape that fits what `to_basis` gives.

        Those that stand for directions outside of the range of A are exactly 0.
        """

    def to_basis(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """``Q^T y``."""
        return y

    def from_basis(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """``Q y``, the inverse of `to_basis`."""
        return y

    def solve(self, y: Tensor, shape: tuple[int, ...], prior: Tensor | float, noise: Tensor | float) -> Tensor:
        """See `Operator`."""
        total = per_sample(prior, y) * self.eigenvalues(y, shape) + per_sample(noise, y)
        inverse = torch.where(total > 0, 1 / total, 0)
        return self.from_basis(self.to_basis(y, shape) * inverse, shape)

    def pseudo_inverse(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `Operator`: ``A^T (A A^T)^+ y``."""
        return self.adjoint(self.solve(y, shape, 1.0, 0.0), shape)


def per_sample(number: Tensor | float, y: Tensor) -> Tensor:
    """A number for all samples, or one for each, in the type and on the device of y (B, ...), to multiply it.

    Args:
        number: (), (B,), or what this has given.
        y: see above.
    """
    tensor = torch.as_tensor(number, dtype=y.dtype, device=y.device)
    return tensor.reshape(-1, *(1,) * (y.ndim - 1)) if tensor.ndim else tensor


def sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """The height and width of images of shape (C, H, W).

    Raises:
        UserError: when the samples are no images.
    """
    if len(shape) != 3:
        raise UserError(f"measures images (C, H, W), and these samples are of shape {shape}")
    return shape[1], shape[2]
