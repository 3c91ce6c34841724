"""The linear multistep method."""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from langevin.diffusion.draws import Draws
from langevin.diffusion.level import broadcast_to
from langevin.samplers.sampler import Predictor, Sampler
from langevin.samplers.straight import StraightLines
from langevin.samplers.thresholding import Thresholding
from langevin.samplers.timestep_spacing import TimestepSpacing

History = list[tuple[Tensor, Tensor]]
"""The latest steps, oldest first: each its tau () and the slope (B, C, H, W) there."""


class LMS(Sampler[History]):
    """Adams-Bashforth: the polynomial through the latest slopes, integrated over the step; one evaluation a step.

    The first steps, before there are `order` slopes, are of the order they can be. Source: Katherine Crowson's
    k-diffusion, "LMS"; Hairer, Norsett and Wanner, Solving ordinary differential equations I, section III.5, for steps
    of any length.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
        order: of how many slopes it makes use; 1 is Euler's method.
    """

    higher_order = True

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None = None,
        steps: Annotated[int, Ge(1)] | None = 50,
        order: Annotated[int, Ge(1), Le(4)] = 4,
    ) -> None:
        super().__init__(timestep_spacing, thresholding, steps)
        self.order = order

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: History | None, draws: Draws
    ) -> tuple[Tensor, History]:
        """See `Sampler`."""
        lines = StraightLines(denoise.schedule)
        history = [*(state or []), (lines.tau(t), lines.slope(denoise(x_t, t)))][-self.order :]
        weights = mean_weights([float(tau) for tau, _ in history], float(lines.tau(t)), float(lines.tau(s)))
        parts = [broadcast_to(weight, x_t) * slope for weight, (_, slope) in zip(weights, history, strict=True)]
        return lines.move(x_t, torch.stack(parts).sum(0), t, s), history


def mean_weights(nodes: list[float], start: float, end: float) -> Tensor:
    """How much the value at each node counts in the mean, from `start` to `end`, of the polynomial through them.

    Args:
        nodes: where the values are known; distinct, the last the start.
        start: one end of the interval.
        end: the other; at the start itself, the mean is the value there.

    Returns:
        float64 of the length of `nodes`; they add up to 1.
    """
    if end == start:
        return torch.eye(len(nodes), dtype=torch.float64)[-1]
    # In units of the interval, where the mean of u^p is 1 / (p + 1): the weights are those that give this for every
    # power that the polynomial may have.
    places = (np.array(nodes) - start) / (end - start)
    powers = np.vander(places, increasing=True).T
    return torch.from_numpy(np.linalg.solve(powers, 1 / np.arange(1, len(nodes) + 1)))
