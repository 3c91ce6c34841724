"""Exponential integrators: what the samplers that step in logSNR have in common.

With ``lambda = log(alpha / sigma)``, half the logSNR, and ``h = lambda_s - lambda_t``, the probability-flow ODE of any
schedule is solved by ``x_s = (sigma_s / sigma_t) x_t + alpha_s int_0^h e^{-(h - u)} x(lambda_t + u) du``, in which
``x(lambda)`` is the predicted image; a sampler interpolates it between the model's evaluations. Source: DPM-Solver++
(Lu et al. 2022, arXiv 2211.01095), proposition 4.1, which nowhere needs ``alpha^2 + sigma^2 = 1``.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from langevin.diffusion.level import Level, broadcast_to, combine


class ModelEvaluation(NamedTuple):
    """The model's prediction at one time.

    Attributes:
        level: the level there, float64 ().
        x: the predicted images (B, C, H, W).
    """

    level: Level
    x: Tensor


History = tuple[ModelEvaluation, ...]
"""The latest evaluations, the newest first."""


def remembered(evaluations: History, number: int) -> History:
    """The latest `number` evaluations: what the next steps make use of.

    One without any signal is forgotten: it is infinitely far away in logSNR and gives no slope of x.
    """
    return () if evaluations[0].level.alpha == 0 else evaluations[:number]


def order_at(order: int, times: Tensor, t: Tensor, s: Tensor, lowered: bool) -> int:
    """The order of the step from t to s.

    Args:
        order: the sampler's.
        times: all the times of the walk.
        t: the time stepped from.
        s: the time stepped to; the step to the data, which is infinite in logSNR, is of first order, and so is one of
            no length.
        lowered: whether an order is at most the number of steps that are left.
    """
    if s == 0 or s == t:
        return 1
    return min(order, int((times < t).sum())) if lowered else order


def distance(at_t: Level, at_s: Level) -> Tensor:
    """``h = lambda_s - lambda_t``, float64 (); infinite from pure noise."""
    return (at_s.log_snr - at_t.log_snr) / 2


def first_order(x_t: Tensor, x: Tensor, at_t: Level, at_s: Level) -> Tensor:
    """x_s if the predicted images stay `x`: ``(sigma_s / sigma_t) x_t + alpha_s (1 - e^{-h}) x``.

    It is written without h, so that it holds from pure noise and to the data.
    """
    kept = at_s.sigma / at_t.sigma
    return combine(kept, x_t, at_s.alpha - kept * at_t.alpha, x)


def multistep(
    x_t: Tensor, evaluations: Sequence[ModelEvaluation], at_s: Level, b: Tensor, released: bool = False
) -> Tensor:
    """x_s if the predicted images are the polynomial in lambda through the evaluations.

    The error of a step is one order above the number of evaluations. Source: UniPC (Zhao et al. 2023, arXiv
    2302.04867), algorithms 1 and 2, in data prediction; with ``B(h) = 1 - e^{-h}``, two evaluations are algorithm 2 of
    DPM-Solver++.

    Args:
        x_t: the images at t, (B, C, H, W).
        evaluations: the one at t, and then any others.
        at_s: the level stepped to.
        b: the paper's B(h), float64 (). The weight of one further evaluation, at a distance of r h, is not the
            polynomial's but ``B(h) / (2 r)``, which is of the same order; with more of them, B(h) cancels.
        released: leaves out the factorials of Taylor's formula (`langevin.samplers.dpm_solver_multistep.DPMSolver3M`).
    """
    now, *others = evaluations
    x_s = first_order(x_t, now.x, now.level, at_s)
    if not others:
        return x_s
    h = distance(now.level, at_s)
    nodes = torch.stack([distance(now.level, other.level) for other in others]) / h
    if len(others) == 1:
        weights = b / (2 * nodes)
    else:
        powers = torch.arange(1, len(others) + 1)
        exact = moments(float(h), len(others))
        if released:
            exact = exact / powers.cumprod(0)
        weights = torch.linalg.solve(nodes ** powers[:, None], exact)
    for weight, other in zip(weights, others, strict=True):
        x_s = x_s + broadcast_to(at_s.alpha * weight, x_t) * (other.x - now.x)
    return x_s


def moments(h: float, number: int) -> Tensor:
    """``h int_0^1 e^{-h (1 - u)} u^k du`` for k = 1 to `number`, float64; ``h k! phi_{k+1}(-h)`` in the literature.

    Integration by parts leads from k to k + 1, ``m_{k+1} = 1 - (k + 1) m_k / h``, which magnifies errors while k + 1
    is above h; there it is followed downwards instead, from so high up that any start will do.
    """
    if h > number:
        values = [-math.expm1(-h)]
        for k in range(1, number + 1):
            values.append(1 - k * values[-1] / h)
        return torch.tensor(values[1:], dtype=torch.float64)
    value, values = 0.0, []
    for k in range(number + 25, 1, -1):
        value = h * (1 - value) / k
        values.append(value)
    return torch.tensor(values[: -number - 1 : -1], dtype=torch.float64)
