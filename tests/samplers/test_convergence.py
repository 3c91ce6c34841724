"""Deterministic samplers follow the probability-flow ODE, with an error that falls as their order says."""

import itertools

import numpy as np
import pytest
import torch
from helpers.draws import Given
from helpers.exact import Mixture, gaussian, gaussian_flow, slope
from scipy.integrate import solve_ivp

from langevin.diffusion.rescalings.zero_terminal_snr import ZeroTerminalSNR
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp import VP
from langevin.samplers.ddim import DDIM
from langevin.samplers.euler import Euler
from langevin.samplers.heun import Heun
from langevin.samplers.lms import LMS
from langevin.samplers.sampler import Predictor
from langevin.samplers.timestep_spacing import Karras, LogSNR, Trailing

SCHEDULES = {
    "vp": VP(),
    "linear": Linear(),
    "ve": VE(sigma_min=1e-3),
    "edm": EDMSchedule(),
    "flow": FlowSchedule(),
    "zero_terminal_snr": ZeroTerminalSNR(VP()),
}
SAMPLERS = {
    "ddim": (DDIM(Trailing()), 1),
    "euler": (Euler(Trailing()), 1),
    "heun": (Heun(Trailing()), 2),
    "lms1": (LMS(Trailing(), order=1), 1),
    "lms2": (LMS(Trailing(), order=2), 2),
    "lms3": (LMS(Trailing(), order=3), 3),
    "lms4": (LMS(Trailing(), order=4), 4),
}
QUANTILES = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(-1, 1, 1, 1)


def graded_times(schedule, steps):
    """Times to 0 whose first steps are short, so that what multistep methods do at their start does not count.

    They begin at sigma = alpha / 2, as much noise as there is data; where a schedule ends without signal, at its end.
    """
    u = 1 - (torch.arange(steps, dtype=torch.float64) / steps).square()
    endless = schedule(torch.tensor(schedule.t_max, dtype=torch.float64)).alpha == 0
    times = schedule.time_of(u / (1 - u) if endless else u / 2)
    return torch.cat([times, times.new_zeros(1)])


def start(schedule, t, mean, std):
    alpha, sigma = schedule(t)
    return alpha * mean + torch.sqrt(alpha**2 * std**2 + sigma**2) * QUANTILES


def errors(sampler, schedule, model, exact, all_steps):
    found = {}
    for steps in all_steps:
        times = graded_times(schedule, steps)
        x = sampler.walk(Predictor(model, times), start(schedule, times[0], model.mean, model.std), None)
        found[steps] = float((x - exact).abs().max())
    return found


def everyday(sampler, schedule):
    """Not those that `test_first_order_methods_are_one` shows to be DDIM, nor schedules that the tests below take."""
    return sampler not in ("euler", "lms1") and schedule in ("ve", "zero_terminal_snr")


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        pytest.param(*place, marks=() if everyday(*place) else pytest.mark.slow)
        for place in itertools.product(SAMPLERS, SCHEDULES)
    ],
)
def test_order_on_a_gaussian(name, schedule):
    (sampler, order), schedule = SAMPLERS[name], SCHEDULES[schedule]
    first, last = graded_times(schedule, 1)
    exact = gaussian_flow(schedule, start(schedule, first, 0.3, 0.4), first, last)
    found = errors(sampler, schedule, gaussian(schedule), exact, (64, 96, 144))
    assert slope(found) > order - 0.2, found  # on straight lines the leading error of the fourth order cancels
    assert found[144] < 0.08 / 4**order, found


def reference(mixture, x_t, level):
    """Where the probability-flow ODE takes `x_t`: the flow of ``x_t / (alpha + sigma)``, solved to 1e-12.

    It is written from the densities: with ``a = 1 - tau``, ``dz / dtau = E[eps | z] - E[x | z]``.
    """
    means, stds, weights = (v.numpy() for v in (mixture.means, mixture.stds, mixture.weights))
    scale = float(level.alpha + level.sigma)

    def velocity(tau, z):
        a = 1 - tau
        variance = a**2 * stds**2 + tau**2
        density = weights / np.sqrt(variance) * np.exp(-((z[:, None] - a * means) ** 2) / (2 * variance))
        share = density / density.sum(1, keepdims=True)
        whitened = (z[:, None] - a * means) / variance
        return (share * (tau * whitened - means - a * stds**2 * whitened)).sum(1)

    z = x_t.flatten().numpy() / scale
    path = solve_ivp(velocity, (float(level.sigma) / scale, 0.0), z, method="DOP853", rtol=1e-12, atol=1e-12)
    return torch.from_numpy(path.y[:, -1]).reshape(x_t.shape)


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(VP(), id="vp"),
        pytest.param(SCHEDULES["ve"], id="ve", marks=pytest.mark.slow),
        pytest.param(EDMSchedule(), id="edm", marks=pytest.mark.slow),
        pytest.param(FlowSchedule(), id="flow", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", ["ddim", "heun", "lms2", "lms3", "lms4"])
def test_order_on_a_mixture(name, schedule):
    (sampler, order), model = SAMPLERS[name], Mixture(schedule)
    first = graded_times(schedule, 1)[0]
    exact = reference(model, start(schedule, first, model.mean, model.std), schedule(first))
    found = errors(sampler, schedule, model, exact, (112, 160, 224))
    assert slope(found) == pytest.approx(order, abs=0.3), found
    assert found[224] < 0.05 / 4**order, found


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_first_order_methods_are_one(schedule):
    """DDIM, Euler's method in any straight coordinates, and Adams-Bashforth with one slope."""
    times, model = graded_times(schedule, 12), Mixture(schedule)
    x_t = start(schedule, times[0], model.mean, model.std)
    ddim, euler, lms = (
        SAMPLERS[name][0].walk(Predictor(model, times), x_t, None) for name in ("ddim", "euler", "lms1")
    )
    torch.testing.assert_close(euler, ddim, rtol=0, atol=1e-12)
    torch.testing.assert_close(lms, ddim, rtol=0, atol=1e-12)


FULL = {
    "euler, edm": (Euler(Karras(), steps=None), EDMSchedule(), 1, (20, 30, 40, 60)),
    "heun, edm": (Heun(Karras(), steps=None), EDMSchedule(), 2, (20, 30, 40, 60)),
    "heun, vp": (Heun(Karras(), steps=None), VP(), 2, (20, 30, 40, 60)),
    "heun, ve": (Heun(LogSNR(), steps=None), VE(), 2, (20, 30, 40, 60)),
    "heun, flow": (Heun(Trailing(), steps=None), FlowSchedule(), 2, (20, 30, 40, 60)),
    "lms, edm": (LMS(Karras(), steps=None), EDMSchedule(), 3, (40, 60, 80)),
    "lms, flow": (LMS(Trailing(), steps=None), FlowSchedule(), 2, (60, 90, 120, 180)),
}


@pytest.mark.parametrize(("sampler", "schedule", "order", "all_steps"), FULL.values(), ids=FULL)
def test_whole_runs_on_the_packages_own_spacings(sampler, schedule, order, all_steps):
    first, last = torch.tensor([schedule.t_max, 0.0], dtype=torch.float64)
    exact = gaussian_flow(schedule, schedule.prior_std * QUANTILES, first, last)
    found = {}
    for sampler.steps in all_steps:
        found[sampler.steps] = float((sampler(gaussian(schedule), Given(QUANTILES)) - exact).abs().max())
    assert slope(found) > order - 0.25, found
