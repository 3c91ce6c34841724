"""A schedule and a parameterization that the package does not have, written from their definitions."""

import torch

from langevin.diffusion.level import Level
from langevin.diffusion.parameterization import Parameterization
from langevin.diffusion.schedules.schedule import Schedule


class Exploding(Schedule):
    """EDM: sigma is the time, up to 80."""

    t_max = 80.0
    num_steps = None
    prior_std = 80.0

    def __call__(self, t):
        return Level(torch.ones_like(t), t)

    def rate(self, t):
        return Level(torch.zeros_like(t), torch.ones_like(t))

    def time_of(self, ratio):
        return ratio


class V(Parameterization):
    """v = alpha eps - sigma x (Salimans and Ho 2022)."""

    def mix(self, schedule, t):
        alpha, sigma = schedule(t)
        return -sigma, alpha
