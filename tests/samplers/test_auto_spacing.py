"""The timestep spacing a sampler takes by itself: a solver of higher order is never worse than DDIM at equal cost."""

import functools
import math

import numpy as np
import pytest
import torch
from helpers.commands import TINY, composed
from helpers.draws import Given
from hydra.utils import get_class
from omegaconf import OmegaConf
from scipy.integrate import solve_ivp

from langevin.assembly.components import make_sampler, make_schedule
from langevin.config.types import TARGET
from langevin.config.validate import CONF, options
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess, Prediction, eps_from_x
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.vp import VP
from langevin.samplers.ddim import DDIM
from langevin.samplers.dpm_solver_multistep import DPMSolver2M
from langevin.samplers.heun import Heun
from langevin.samplers.predictor_corrector import PredictorCorrector
from langevin.samplers.timestep_spacing import Auto, InnerLogSNR, Karras, Trailing, UniformSpacing

RING = [[0.7 * math.cos(k * math.pi / 4), 0.7 * math.sin(k * math.pi / 4)] for k in range(8)]
DATA = {
    "ring": (RING, 0.08),
    "three": ([[-0.6, 0.2], [0.5, -0.3], [0.1, 0.6]], 0.25),
    "broad": ([[-0.2, 0.2], [0.3, -0.1]], 0.5),
}
FORMULATIONS = [name for name in options("formulation") if name != "v_prediction"]  # its noise levels are iddpm's
SOLVERS = [
    name
    for name in options("sampler")
    if get_class(OmegaConf.load(CONF / "sampler" / f"{name}.yaml")[TARGET]).higher_order
]
NOISE = torch.special.ndtri(torch.quasirandom.SobolEngine(2, seed=3).draw(64).double().clamp(1e-4, 1 - 1e-4))[
    ..., None, None
]


class Clusters:
    """The exact denoiser of a mixture of equal Gaussians in the plane, float64; counts its calls."""

    def __init__(self, schedule, means, std):
        self.schedule, self.process = schedule, GaussianProcess(schedule, Eps())
        self.means, self.std, self.calls = torch.tensor(means, dtype=torch.float64), std, 0

    def clean(self, x, alpha, sigma):
        total = alpha**2 * self.std**2 + sigma**2
        gap = x[:, None] - alpha * self.means
        share = torch.softmax(-gap.square().sum(-1) / (2 * total), -1)
        return (share[..., None] * (self.means + alpha * self.std**2 / total * gap)).sum(1)

    def __call__(self, x_t, t, cond=None):
        self.calls += 1
        level = self.schedule(t)
        x = self.clean(x_t[..., 0, 0], *level)[..., None, None]
        eps = eps_from_x(x, x_t, level)
        return Prediction(x, eps, eps, None)

    def exact(self, x_t, level):
        """Where the probability-flow ODE takes `x_t`: ``dz / dtau = eps - x`` in z = x_t / (alpha + sigma)."""
        scale = float(level.alpha + level.sigma)

        def velocity(tau, z):
            z = torch.from_numpy(z).reshape(-1, 2)
            x = self.clean(z, 1 - tau, tau)
            return ((z - (1 - tau) * x) / tau - x).numpy().ravel()

        span = (float(level.sigma) / scale, 1e-6)
        path = solve_ivp(velocity, span, (x_t / scale).numpy().ravel(), method="DOP853", rtol=1e-8, atol=1e-8)
        return torch.from_numpy(path.y[:, -1]).reshape(x_t.shape)


@functools.cache
def base(formulation):
    return composed("train", *TINY, f"formulation={formulation}", "timestep_spacing=auto", "thresholding=none")[0]


@functools.cache
def problem(formulation, data):
    """The data's denoiser, and where the noise leads in truth."""
    model = Clusters(make_schedule(base(formulation), 8), *DATA[data])
    last = torch.tensor(model.schedule.t_max, dtype=torch.float64)
    return model, model.exact(NOISE * model.schedule.prior_std, model.schedule(last))


@functools.cache
def error(formulation, data, sampler, steps):
    """The root mean square error, and the evaluations that it cost."""
    cfg = OmegaConf.merge(base(formulation), {})
    OmegaConf.set_struct(cfg, False)
    cfg.sampler = OmegaConf.load(CONF / "sampler" / f"{sampler}.yaml")
    cfg.sampler.steps = steps
    if "eta" in cfg.sampler:
        cfg.sampler.eta = 0.0
    model, truth = problem(formulation, data)
    model.calls = 0
    x = make_sampler(cfg, None)(model, Given(NOISE))
    return float((x - truth).square().mean().sqrt()), model.calls


def test_there_are_solvers_to_look_at():
    assert {"heun", "lms", "dpm_solver_2m", "dpm_solver_3m", "unipc", "dpm_solver_2s"} <= set(SOLVERS)


# Every day, few steps on a schedule that preserves variance, on one without bound, and on straight lines.
@pytest.mark.parametrize("numbers", [(8, 11), pytest.param((20, 50), marks=pytest.mark.slow)], ids=["few", "many"])
@pytest.mark.parametrize(
    "formulation",
    [pytest.param(name, marks=() if name in ("ddpm", "edm", "flow") else pytest.mark.slow) for name in FORMULATIONS],
)
@pytest.mark.parametrize("sampler", SOLVERS)
def test_no_solver_is_worse_than_ddim(sampler, formulation, numbers):
    for data in DATA:
        for steps in numbers:
            ours, evaluations = error(formulation, data, sampler, steps)
            ddim, cost = error(formulation, data, "ddim", evaluations)
            assert cost == evaluations
            assert ours < ddim, f"{data}, {steps} steps: {ours:.4f}; DDIM: {ddim:.4f}"


def test_what_each_sampler_takes():
    chosen = {
        DDIM: {VP: Trailing, FlowSchedule: Trailing, EDMSchedule: Karras},
        DPMSolver2M: {VP: InnerLogSNR, FlowSchedule: InnerLogSNR, EDMSchedule: InnerLogSNR},
        PredictorCorrector: {VP: UniformSpacing, EDMSchedule: UniformSpacing},
    }
    for sampler, spacings in chosen.items():
        for schedule, timestep_spacing in spacings.items():
            assert type(sampler(Auto()).spacing_on(schedule())) is timestep_spacing
    given = Trailing()
    assert DPMSolver2M(given).spacing_on(VP()) is given


def test_the_steps_between_the_ends_are_equal_in_log_snr():
    times = InnerLogSNR(sigma_max=4.0, sigma_min=0.03)(VP(), 10)
    ratios = VP()(times[:-1]).ratio
    assert times[0] == VP().t_max
    torch.testing.assert_close(ratios[1:], torch.from_numpy(np.geomspace(4.0, 0.03, 9)), rtol=1e-6, atol=0)
    by_steps = VP()(InnerLogSNR()(VP(), 64)[:-1]).ratio
    assert by_steps[1].item() == pytest.approx(16.0, rel=1e-6)
    assert by_steps[-1].item() == pytest.approx(max(0.24 / 64, float(VP()(torch.tensor(VP().t_min)).ratio)), rel=1e-5)


@pytest.mark.parametrize("schedule", [VP(), EDMSchedule(), FlowSchedule()], ids=["vp", "edm", "flow"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_are_steps_too(schedule, steps):
    times = InnerLogSNR()(schedule, steps)
    assert len(times) == steps + 1
    assert times[0] == schedule.t_max
    assert (times.diff() < 0).all()


def test_a_step_that_is_too_long_for_two_slopes_is_eulers():
    def made(sampler, timestep_spacing):
        model = Clusters(VP(), *DATA["three"])
        return sampler(model, Given(NOISE)), model.calls

    coarse = Karras()
    assert made(Heun(coarse, steps=4), coarse)[1] == 7
    assert made(Heun(coarse, steps=4, max_ratio=8.0), coarse)[1] < 7
    assert made(Heun(coarse, steps=60, max_ratio=8.0), coarse)[1] == 119
