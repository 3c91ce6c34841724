"""Muon for the matrices of a network, and AdamW for the rest of it."""

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from torch import Tensor
from torch.optim import AdamW

from langevin.training.shares import full_tensor, like_own

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial that Newton-Schulz iterates: it takes singular values from (0, 1] to about 1 quickly."""
LEAST_NORM = 1e-7


class Muon(AdamW):
    """Steps along the orthogonalized momentum of matrices (Muon), and by AdamW for all other weights.

    Sources: Jordan et al. 2024; the scale of a step, which lets both share a learning rate, Liu et al. 2025 ("Muon is
    Scalable for LLM Training"). The weight of a convolution (out, in, h, w) is the matrix (out, in * h * w).

    Torch's `Muon` is not used: it takes neither convolutions nor sharded weights, nor the weights that are no matrices.
    On matrices this one makes its steps (``adjust_lr_fn="match_rms_adamw"``): on a GPU to the bit, elsewhere in
    float32, where torch's have the rounding of bfloat16.

    Of sharded weights (FSDP) every process gathers the momentum of one matrix at a time, orthogonalizes it, and steps
    its own shard.

    Args:
        params: the weights, or groups of them.
        lr: the learning rate of all; at least 0.
        momentum: of Muon's running mean of gradients; at least 0, below 1.
        nesterov: whether Muon adds the gradient once more to that mean.
        ns_steps: Newton-Schulz iterations; at least 1.
        min_side: a weight is a matrix for Muon if both its sides have at least this length. Shorter ones are of layers
            between data and features, and of embeddings, which orthogonal steps do not suit; at least 1.
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: of all weights, decoupled; at least 0.
        fused: whether AdamW is one kernel over all its weights.

    Raises:
        ValueError: when a value is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Annotated[float, Ge(0)] = 2e-4,
        momentum: Annotated[float, Ge(0), Lt(1)] = 0.95,
        nesterov: bool = True,
        ns_steps: Annotated[int, Ge(1)] = 5,
        min_side: Annotated[int, Ge(1)] = 32,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Annotated[float, Ge(0)] = 1e-8,
        weight_decay: Annotated[float, Ge(0)] = 0.0,
        fused: bool | None = None,
    ) -> None:
        first, *others = params
        groups = [first, *others] if isinstance(first, dict) else [{"params": [first, *others]}]
        settings = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
        parts = []
        for group in groups:
            weights = list(group["params"])
            for extra, is_matrix in ((settings, True), ({}, False)):
                if chosen := [weight for weight in weights if has_sides(weight, min_side) == is_matrix]:
                    parts.append({**group, "params": chosen, **extra})
        super().__init__(parts, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step all weights that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        stepped = []
        for group in self.param_groups:
            for weight in group["params"] if "momentum" in group else ():
                if weight.grad is not None:
                    self._step_matrix(weight, weight.grad, group)
                    stepped.append((weight, weight.grad))
                    weight.grad = None  # AdamW leaves such a weight alone
        super().step()
        for weight, gradient in stepped:
            weight.grad = gradient
        return loss

    def _step_matrix(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["step"] = torch.tensor(0.0)  # AdamW expects it of every weight when it loads a state
            state["momentum_buffer"] = torch.zeros_like(gradient, memory_format=torch.preserve_format)
        state["step"] += 1
        mean = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        direction = full_tensor(gradient.lerp(mean, group["momentum"]) if group["nesterov"] else mean)
        matrix = direction.flatten(1)
        step = orthogonalized(matrix, group["ns_steps"]).view(direction.shape)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        # The root of the mean square of AdamW's steps is usually about 0.2.
        weight.add_(like_own(step, weight), alpha=-group["lr"] * (0.2 * math.sqrt(max(matrix.shape))))


def has_sides(weight: Tensor, least: int) -> bool:
    """Whether a weight is a matrix, a convolution's included, both sides of which are at least so long."""
    return weight.ndim >= 2 and min(len(weight), math.prod(weight.shape[1:])) >= least


def orthogonalized(matrix: Tensor, steps: int) -> Tensor:
    """The nearest matrix with orthogonal rows or columns, roughly: singular values from 0.5 to 1.5.

    Newton-Schulz' iteration X <- (a + b X X^T + c (X X^T)^2) X: on a GPU as it stands, in bfloat16, which is many times
    as fast there; elsewhere in float32 and in the square matrix X X^T alone, with under half of the products.

    Args:
        matrix: (M, N).
        steps: of the iteration, in which no singular vector changes.
    """
    is_tall = len(matrix) > matrix.shape[1]
    x = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    x = x.T if is_tall else x
    x = x / x.norm().clamp(min=LEAST_NORM)
    x = iterated(x, steps) if matrix.is_cuda else iterated_gram(x, steps)
    return x.T if is_tall else x


def iterated(x: Tensor, steps: int) -> Tensor:
    """Newton-Schulz as torch's `Muon` computes it, to the bit: of (M, N), M <= N, whose norm is 1."""
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def iterated_gram(x: Tensor, steps: int) -> Tensor:
    """The same but for rounding: factors of all steps are polynomials of the first X X^T, and commute.

    In bfloat16 their product would lose small singular values; float32 keeps them.
    """
    a, b, c = COEFFICIENTS
    gram = x @ x.T
    product = torch.eye(len(x), dtype=x.dtype, device=x.device)
    for step in range(steps):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        if step < steps - 1:
            gram = factor @ gram @ factor
    return product @ x
