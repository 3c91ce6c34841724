"""Several operators, one after the other."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from langevin.errors import OptionError, UserError
from langevin.restoration.operators.operator import Operator, per_sample


class Composition(Operator):
    """The product ``A_n ... A_2 A_1`` of operators of which each measures what the one before it has measured.

    Its systems are those of the last operator, and so solved as exactly, where for all others ``A A^T`` is a multiple
    of the identity, as of averages and of grey levels; else they are solved by conjugate gradients.

    Args:
        operators: by the names of their nodes in the group `operators`, the first first; at least one.
    """

    def __init__(self, operators: Mapping[str, Operator]) -> None:
        assert operators
        self.operators = dict(operators)
        *before, self._last = self.operators.values()
        squares = [operator.square for operator in before if operator.square is not None]
        self._square = math.prod(squares) if len(squares) == len(before) else None
        self._shapes: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

    @property
    def square(self) -> float | None:
        """See `Operator`."""
        last = self._last.square
        return None if self._square is None or last is None else self._square * last

    def shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """What each of the operators is given, and at last the measurement.

        Args:
            shape: (C, *size) of one sample.

        Raises:
            OptionError: when an operator does not suit, by the path of its option in the config.
        """
        if shape in self._shapes:
            return self._shapes[shape]
        shapes = [shape]
        for name, operator in self.operators.items():
            try:
                shapes.append(operator.measured(shapes[-1]))
            except OptionError as error:
                (field, text), *also = [(f"operators.{name}.{field}", text) for field, text in error.found]
                raise OptionError(field, text, also) from error
            except UserError as error:
                raise OptionError(f"operators.{name}", str(error)) from error
        self._shapes[shape] = shapes
        return shapes

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `Operator`."""
        return self.shapes(shape)[-1]

    def __call__(self, x: Tensor) -> Tensor:
        """See `Operator`."""
        for operator in self.operators.values():
            x = operator(x)
        return x

    def adjoint(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `Operator`."""
        shapes = self.shapes(shape)
        for operator, each in zip(reversed(self.operators.values()), reversed(shapes[:-1]), strict=True):
            y = operator.adjoint(y, each)
        return y

    def solve(self, y: Tensor, shape: tuple[int, ...], prior: Tensor | float, noise: Tensor | float) -> Tensor:
        """See `Operator`."""
        if self._square is None:
            return super().solve(y, shape, prior, noise)
        return self._last.solve(y, self.shapes(shape)[-2], per_sample(prior, y) * self._square, noise)

    def pseudo_inverse(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See `Operator`."""
        if self._square is None:
            return super().pseudo_inverse(y, shape)
        return self.adjoint(self.solve(y, shape, 1.0, 0.0), shape)

    def of_latents(self, shape: tuple[int, ...], latent: tuple[int, ...]) -> Operator:
        """See `Operator`: only where there is one."""
        return self._last.of_latents(shape, latent) if len(self.operators) == 1 else super().of_latents(shape, latent)

    def record(self) -> dict[str, Any]:
        """See `Operator`: those of the operators, in their order."""
        return {"operators": [operator.record() for operator in self.operators.values()]}
