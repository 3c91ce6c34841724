"""What holds of every sampler that steps in logSNR."""

import itertools
import math

import pytest
import torch
from exponential_helpers import SCHEDULES, walk_times
from helpers.draws import Given
from helpers.exact import Mixture, gaussian, gaussian_flow, slope
from sampler_helpers import Written
from scipy.integrate import quad

from langevin.diffusion.level import Level
from langevin.diffusion.rescalings.input_scaling import InputScaling
from langevin.diffusion.rescalings.zero_terminal_snr import ZeroTerminalSNR
from langevin.diffusion.schedules.cosine_log_snr import CosineLogSNR
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.vp import VP
from langevin.samplers.ddim import DDIM
from langevin.samplers.dpm_solver_multistep import DPMSolver2M, DPMSolver3M
from langevin.samplers.dpm_solver_sde import DPMSolver2MSDE
from langevin.samplers.dpm_solver_singlestep import DPMSolver1S, DPMSolver2S
from langevin.samplers.exponential import ModelEvaluation, first_order, moments, multistep, order_at
from langevin.samplers.sampler import Predictor
from langevin.samplers.thresholding import Static
from langevin.samplers.timestep_spacing import (
    ExplicitSpacing,
    Karras,
    Leading,
    LogSNR,
    QuadraticSpacing,
    Trailing,
    UniformSpacing,
)
from langevin.samplers.unipc import UniPC

SAMPLERS = {
    "1s": DPMSolver1S,
    "2s": DPMSolver2S,
    "2m": DPMSolver2M,
    "3m": DPMSolver3M,
    "2m_sde": DPMSolver2MSDE,
    "unipc": UniPC,
    "unipc_bh1": lambda *args: UniPC(*args, order=2, variant="bh1"),
}
NOISELESS = [name for name in SAMPLERS if name != "2m_sde"]
SPACINGS = [
    UniformSpacing(),
    Trailing(),
    Leading(),
    QuadraticSpacing(),
    Karras(),
    LogSNR(),
    ExplicitSpacing([900.0, 500.0, 250.0, 60.0, 7.0]),
]
FROM_PURE_NOISE = [UniformSpacing(), Trailing(), QuadraticSpacing(), ExplicitSpacing([1.0, 0.7, 0.4, 0.2, 0.02])]


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("h", [1e-9, 1e-3, 0.4, 1.0, 2.99, 3.01, 7.0, 30.0, 700.0])
def test_moments_are_their_integrals(h):
    ours = moments(h, 3)
    for k, moment in enumerate(ours.tolist(), start=1):
        near = [1 - c / h for c in (1, 30) if c < h]  # for large h the mass is near u = 1
        expected = h * quad(lambda u, k=k: math.exp(-h * (1 - u)) * u**k, 0, 1, epsabs=0, epsrel=1e-12, points=near)[0]
        assert moment == pytest.approx(expected, rel=1e-12)


def test_first_order_is_exact_for_a_constant_prediction():
    """x_s is x_t with the image kept and the noise scaled: also from pure noise, and to the data."""
    x, eps = (torch.randn(2, 1, 2, 2, dtype=torch.float64) for _ in range(2))
    levels = [Level(*tensor(a, b)) for a, b in [(0, 1.0), (0.3, 5.0), (2.0, 0.7), (0.5, 0.0)]]
    for at_t, at_s in itertools.combinations(levels, 2):
        stepped = first_order(at_t.alpha * x + at_t.sigma * eps, x, at_t, at_s)
        torch.testing.assert_close(stepped, at_s.alpha * x + at_s.sigma * eps, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("number", [3, 4])
def test_multistep_is_exact_for_polynomials(number):
    """Three evaluations of a parabola, four of a cubic, at uneven distances, one of them ahead as in a corrector."""
    coefficients = [0.3, -1.1, 0.4, 0.25][:number]

    def x(log_ratio: float) -> float:
        return sum(c * (-log_ratio) ** k for k, c in enumerate(coefficients))

    def level(log_ratio: float) -> Level:
        return Level(*tensor(0.4, 0.4 * math.exp(log_ratio)))

    t, s = 0.9, 0.2
    nodes = [t, s, 1.3, 2.1][:number]
    points = [ModelEvaluation(level(node), tensor(x(node)).reshape(1, 1, 1, 1)) for node in nodes]
    end = multistep(torch.ones(1, 1, 1, 1, dtype=torch.float64), points, level(s), tensor(float("nan"))[0])
    integral = quad(lambda log_ratio: math.exp(s - log_ratio) * x(log_ratio), s, t, epsabs=0, epsrel=1e-13)[0]
    assert float(end) == pytest.approx(math.exp(s - t) + 0.4 * integral, rel=1e-12)


def test_order_at():
    times = tensor(9, 7, 5, 3, 0)
    orders = {low: [order_at(3, times, t, s, low) for t, s in itertools.pairwise(times)] for low in (True, False)}
    assert orders == {True: [3, 3, 2, 1], False: [3, 3, 3, 1]}


@pytest.mark.parametrize(("name", "calls"), [*((name, 8) for name in SAMPLERS if name != "2s"), ("2s", 15)])
def test_evaluations(name, calls):
    model = Mixture(Linear())
    SAMPLERS[name](Trailing(), None, 8)(model, Written())
    assert model.calls == calls


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("timestep_spacing", SPACINGS, ids=lambda timestep_spacing: type(timestep_spacing).__name__)
def test_every_spacing_on_discrete_steps(name, timestep_spacing):
    x = SAMPLERS[name](timestep_spacing, Static(), 5)(Mixture(Linear()), Written())
    assert x.dtype == torch.float64
    assert 0.1 < x.std() < 1
    assert x.abs().max() <= 1, "the last step is to the predicted image, which is thresholded"


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "timestep_spacing", FROM_PURE_NOISE, ids=lambda timestep_spacing: type(timestep_spacing).__name__
)
def test_every_spacing_from_pure_noise(name, timestep_spacing):
    model = Mixture(FlowSchedule())
    x = SAMPLERS[name](timestep_spacing, Static(), 5)(model, Written())
    assert x.std() > 0.1
    assert x.abs().max() <= 1
    assert model.calls == (8 if name == "2s" else 5), "a step from pure noise is of first order"


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_zero_terminal_snr(name, steps):
    x = SAMPLERS[name](Trailing(), None, steps)(Mixture(ZeroTerminalSNR(Linear())), Written())
    assert x.isfinite().all()
    assert x.abs().max() <= 1.5


@pytest.mark.parametrize(("name", "order"), [("1s", 1), ("2s", 2), ("2m", 2), ("3m", 2), ("unipc", 2)])
def test_all_the_way_from_pure_noise_to_the_data(name, order):
    """However many steps there are, those at both ends are long in logSNR, which leaves second order at most."""
    start = torch.linspace(-3, 3, 7, dtype=torch.float64).reshape(-1, 1, 1, 1)
    exact = gaussian_flow(FlowSchedule(), start, *tensor(1, 0))
    errors = {}
    for steps in (40, 80, 160):
        x = SAMPLERS[name](QuadraticSpacing(), None, steps)(gaussian(FlowSchedule()), Given(start))
        errors[steps] = float((x - exact).abs().max())
    assert errors[160] < (0.02 if order == 1 else 2e-4)
    assert slope(errors) > order - 0.15, errors


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", [Linear(), FlowSchedule()], ids=["linear", "flow"])
def test_float32_stays(name, schedule):
    single, double = Mixture(schedule), Mixture(schedule)
    for field in ("means", "stds", "weights"):
        setattr(single, field, getattr(single, field).float())
    noise, exact = Written(), Written()
    x = SAMPLERS[name](Trailing(), None, 12)(single, Given(lambda: noise().float()))
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), SAMPLERS[name](Trailing(), None, 12)(double, exact), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_image_does_not_depend_on_its_company(name):
    noises = [Written((1, 1, 3, 3), seed) for seed in range(4)]
    alone = [SAMPLERS[name](Trailing(), None, 9)(Mixture(FlowSchedule()), noise) for noise in noises]
    noises = [Written((1, 1, 3, 3), seed) for seed in range(4)]
    together = Given(lambda: torch.cat([noise() for noise in noises]))
    batch = SAMPLERS[name](Trailing(), None, 9)(Mixture(FlowSchedule()), together)
    torch.testing.assert_close(batch, torch.cat(alone), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NOISELESS)
def test_does_the_same_on_every_schedule(name):
    """In units of the image, x_t / alpha, at the same ratios of noise to signal."""
    ends = []
    for schedule in (*SCHEDULES.values(), InputScaling(VP(), 0.4)):
        predictor = Predictor(Mixture(schedule), walk_times(schedule, 8))
        first, last = schedule(predictor.times[0]), schedule(predictor.times[-1])
        start = first.alpha * 20 * torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(-1, 1, 1, 1)
        ends.append(SAMPLERS[name](Trailing()).walk(predictor, start, None) / last.alpha)
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", [Linear(), FlowSchedule(), InputScaling(Linear(), 0.5), CosineLogSNR()])
def test_first_order_is_ddim(schedule):
    ours, ddim = (kind(Trailing(), None, 7)(Mixture(schedule), Written()) for kind in (DPMSolver1S, DDIM))
    torch.testing.assert_close(ours, ddim, rtol=1e-11, atol=1e-11)
