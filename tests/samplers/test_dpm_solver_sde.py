import math

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from exponential_helpers import SCHEDULES, our_path, their_path, walk_times
from helpers.draws import Given
from helpers.exact import Mixture, gaussian, slope
from sampler_helpers import Written, assert_same_path, denoiser

from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.vp import VP
from langevin.samplers.dpm_solver_multistep import DPMSolver2M
from langevin.samplers.dpm_solver_sde import DPMSolver2MSDE
from langevin.samplers.sampler import Predictor
from langevin.samplers.timestep_spacing import Leading, LogSNR, Trailing


class OneAtATime(Given):
    """Gives unit noise to row i + 1 of a batch at call i, and none to the others."""

    def __init__(self, rows: int) -> None:
        super().__init__(self)
        self.rows, self.calls = rows, 0

    def __call__(self) -> torch.Tensor:
        self.calls += 1
        return torch.eye(self.rows, dtype=torch.float64)[self.calls].reshape(-1, 1, 1, 1)


def spread_error(eta: float, schedule, steps: int) -> float:
    """How far the variance of a walk is from the data's, noised; relative, and without any chance.

    On Gaussian data a walk is affine in its start and its noises, of which each is tried by itself.
    """
    model, times = gaussian(schedule, mean := 0.3, std := 0.4), walk_times(schedule, steps)
    (alpha, sigma), (alpha_end, sigma_end) = schedule(times[0]), schedule(times[-1])
    start = torch.full((steps + 2, 1, 1, 1), float(alpha * mean), dtype=torch.float64)
    start[0] += math.sqrt(alpha**2 * std**2 + sigma**2)
    end = DPMSolver2MSDE(LogSNR(), eta=eta).walk(Predictor(model, times), start, OneAtATime(steps + 2)).flatten()
    assert float(end[-1]) == pytest.approx(float(alpha_end * mean), rel=1e-12)
    variance = (end[:-1] - end[-1]).square().sum()
    return abs(float(variance / (alpha_end**2 * std**2 + sigma_end**2)) - 1)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("eta", [0.5, 1.0, 1.5])
def test_variance_is_right_to_second_order(eta, schedule):
    errors = {steps: spread_error(eta, schedule, steps) for steps in (60, 120, 240)}
    assert errors[240] < 2e-3
    assert slope(errors) == pytest.approx(2, abs=0.1), errors


def test_a_mixture_comes_out():
    """Mean, variance and the third moment, which tells a mixture from a Gaussian, within 4 standard errors."""
    schedule, number = VP(), 40_000
    model, times = Mixture(schedule), walk_times(schedule, 150)
    generator = torch.Generator().manual_seed(0)

    def noise() -> torch.Tensor:
        return torch.randn(number, 1, 1, 1, generator=generator, dtype=torch.float64)

    def noised(level) -> torch.Tensor:
        chosen = torch.multinomial(model.weights, number, replacement=True, generator=generator)
        x = model.means[chosen] + model.stds[chosen] * noise().flatten()
        return (level.alpha * x + level.sigma * noise().flatten()).reshape(-1, 1, 1, 1)

    end = schedule(times[-1])
    walked = DPMSolver2MSDE(LogSNR()).walk(Predictor(model, times), noised(schedule(times[0])), Given(noise))
    mean = end.alpha * model.mean
    for power in (1, 2, 3):
        ours, right = ((x - mean) ** power for x in (walked, noised(end)))
        standard_error = math.hypot(ours.std(), right.std()) / math.sqrt(number)
        # At 150 steps the bias of the variance is half a percent, and of the others less.
        assert abs(ours.mean() - right.mean()) < 4 * standard_error + (0.005 * right.mean() if power == 2 else 0)
    assert abs(right.mean()) > 10 * right.std() / math.sqrt(number)


def test_without_noise_it_is_2m():
    model = denoiser(Linear())
    for steps in (3, 20):
        ours = our_path(DPMSolver2MSDE(Trailing(), None, steps, eta=0), model, noise := Written())
        assert noise.calls == 1
        assert_same_path(ours, our_path(DPMSolver2M(Trailing(), None, steps), model, Written()), 1e-12)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_noise_is_drawn_once_a_step_but_the_last(eta):
    DPMSolver2MSDE(Trailing(), None, 10, eta)(denoiser(Linear()), noise := Written())
    assert noise.calls == 10


@pytest.mark.parametrize("timestep_spacing", [Trailing(), Leading()], ids=["trailing", "leading"])
@pytest.mark.parametrize("steps", [2, 10, 25])
def test_path_is_diffusers(steps, timestep_spacing):
    model, times = denoiser(Linear()), timestep_spacing(Linear(), steps)
    ours = our_path(DPMSolver2MSDE(timestep_spacing, None, steps), model, Written())
    scheduler = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=2)
    theirs = their_path(scheduler, model, times, Written(), variance_noise=None)
    assert_same_path(ours, theirs, 1e-6)  # which are computed in float32
