"""What all masks have in common."""

from abc import abstractmethod

import torch
from torch import Tensor

from langevin.restoration.operators.operator import DiagonalOperator, Operator, sides


class Masking(DiagonalOperator):
    """Some pixels are known, in all channels, and the others are not.

    A measurement is of the samples' shape, with 0 (grey) where it is not known; so ``A = A^T = A A^T``, and A is its
    own pseudo-inverse.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, torch.device], Tensor] = {}

    @abstractmethod
    def unknown(self, height: int, width: int) -> Tensor:
        """The pixels that are not known: bool (H, W), on the CPU.

        Raises:
            OptionError: when it does not suit images of that size.
        """

    def known(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """The pixels that are known, of samples (C, H, W): bool (H, W)."""
        key = (*sides(shape), device)
        if key not in self._known:
            with torch.inference_mode(False):  # it may be used with and without gradients
                self._known[key] = ~self.unknown(*key[:2]).to(device)
        return self._known[key]

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `Operator`."""
        self.known(shape, torch.device("cpu"))
        return shape

    def __call__(self, x: Tensor) -> Tensor:
        """See `Operator`."""
        return torch.where(self.known(tuple(x.shape[1:]), x.device), x, 0)

    def of_latents(self, shape: tuple[int, ...], latent: tuple[int, ...]) -> Operator:
        """See `Operator`: a latent is known where all pixels are that it stands for."""
        unknown = ~self.known(shape, torch.device("cpu"))
        factors = [size // part for size, part in zip(shape[1:], latent[1:], strict=True)]
        coarse = unknown.unflatten(0, (-1, factors[0])).unflatten(2, (-1, factors[1])).any(3).any(1)
        return GivenMask(coarse)

    def adjoint(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `Operator`."""
        return self(y)

    def eigenvalues(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `DiagonalOperator`: 1 where a pixel is known."""
        return self.known(shape, y.device).to(y.dtype)


class GivenMask(Masking):
    """A mask that is known.

    Args:
        unknown: the pixels that are not known: bool (H, W).
    """

    def __init__(self, unknown: Tensor) -> None:
        super().__init__()
        self._unknown = unknown

    def unknown(self, height: int, width: int) -> Tensor:
        """See `Masking`; for its own size alone."""
        return self._unknown
