"""The probability-flow ODE solved to many digits, walks that end before the data, and diffusers' tables in float64."""

import numpy as np
import torch
from helpers.exact import Mixture, slope
from scipy.integrate import solve_ivp
from torch import Tensor

from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.vp import VP
from langevin.samplers.sampler import Predictor, Sampler

SCHEDULES = {"vp": VP(), "edm": EDMSchedule(), "flow": FlowSchedule()}
MOST, LEAST = 20.0, 0.05
"""The walks go from one noise-to-signal ratio to the other."""


def image(y: np.ndarray, ratio: float) -> np.ndarray:
    """E[x | x + ratio eps = y] for the default mixture of `helpers.exact`, written independently of it."""
    top = bottom = 0.0
    for mean, std, weight in ((-0.6, 0.2, 0.4), (0.5, 0.3, 0.6)):
        variance = std**2 + ratio**2
        density = weight * np.exp(-((y - mean) ** 2) / (2 * variance)) / np.sqrt(variance)
        top = top + density * (mean * ratio**2 + y * std**2) / variance
        bottom = bottom + density
    return top / bottom


def flowed(y: np.ndarray, most: float = MOST, least: float = LEAST) -> np.ndarray:
    """Where the probability-flow ODE takes y = x_t / alpha: ``dy / dlog(ratio) = y - E[x | y]`` on any schedule."""
    ends = np.log(most), np.log(least)
    solved = solve_ivp(lambda r, y: y - image(y, np.exp(r)), ends, y, method="DOP853", rtol=1e-12, atol=1e-12)
    return solved.y[:, -1]


START = np.linspace(-2.2, 2.2, 12) * MOST
END = flowed(START)


def walk_times(schedule, steps: int) -> Tensor:
    """Times between the two ratios whose logSNR grows by steps that are short at first.

    A multistep method begins at first order; so short are the steps there that this does not show.
    """
    fraction = torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 2
    first, last = np.log(MOST), np.log(LEAST)
    return schedule.time_of(torch.exp(first + (last - first) * fraction))


def errors(sampler: Sampler, schedule, all_steps) -> dict[int, float]:
    """How far the walk's end is from the exact one, by the number of steps."""
    found = {}
    for steps in all_steps:
        predictor = Predictor(Mixture(schedule), walk_times(schedule, steps))
        start = schedule(predictor.times[0]).alpha * torch.from_numpy(START).reshape(-1, 1, 1, 1)
        end = sampler.walk(predictor, start, None) / schedule(predictor.times[-1]).alpha
        found[steps] = float((end.flatten() - torch.from_numpy(END)).abs().max())
    return found


def order(sampler: Sampler, schedule, all_steps) -> float:
    return slope(errors(sampler, schedule, all_steps))


def our_path(sampler: Sampler, model, noise) -> list[Tensor]:
    """The images at each evaluation, and the finished ones."""
    path = []
    finished = sampler(model, noise, on_prediction=lambda x_t, t, prediction: path.append(x_t))
    return [*path, finished]


def their_path(scheduler, model, times: Tensor, noise, **options) -> list[Tensor]:
    """What a scheduler of diffusers makes of the same model at the same times, from a table in float64.

    The times may be fractional; then the table is that of the linear schedule with beta constant within each step.
    """
    config = scheduler.config
    assert config.beta_schedule == "linear"
    assert config.final_sigmas_type == "zero"
    betas = np.linspace(config.beta_start, config.beta_end, config.num_train_timesteps)
    log_alpha = np.interp(times, np.arange(len(betas) + 1), np.concatenate([[0], np.cumsum(np.log1p(-betas)) / 2]))
    sigmas = np.sqrt(np.expm1(-2 * log_alpha))
    assert sigmas[-1] == 0
    scheduler.set_timesteps(len(times) - 1)
    scheduler.sigmas = torch.from_numpy(sigmas)
    scheduler.timesteps = times[:-1] - 1
    x = noise()
    path = [x]
    for index in scheduler.timesteps:
        if "variance_noise" in options:
            last = index == scheduler.timesteps[-1]
            options["variance_noise"] = torch.zeros_like(x) if last else noise()
        x = scheduler.step(model.network(x, index.expand(len(x))), index, x, **options).prev_sample
        path.append(x)
    return path
