import pytest
import torch
from diffusers import DDPMScheduler
from diffusion_helpers import TinyNetwork, normal, times, wide
from torch import nn

from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import Eps, Parameterization, V, X
from langevin.diffusion.process import GaussianProcess, eps_from_x
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.variance import FixedSmall


class Lookup(nn.Module):
    """Puts out what it was given, and keeps its inputs."""

    def __init__(self, output=None) -> None:
        super().__init__()
        self.output = output
        self.asked = []

    def forward(self, x, c_noise, cond=None):
        self.asked.append((x, c_noise, cond))
        return x if self.output is None else self.output

    def null_condition(self, cond):
        return {name: torch.zeros_like(value) - 1 for name, value in cond.items()}


class Odd(Parameterization):
    """No known one: an arbitrary mixture."""

    def mix(self, schedule, t):
        return 0.3 + 0 * t, -1.7 + t / schedule.t_max


@pytest.mark.parametrize(
    ("schedule", "t"),
    [
        (Linear(), times(1.0, 2.0, 400.0, 1000.0)),
        (Cosine(), times(1.0, 100.0, 777.0, 990.0)),
        (FlowSchedule(), times(0.01, 0.3, 0.7, 0.95)),
        (EDMSchedule(), times(0.002, 0.5, 3.0, 80.0)),
    ],
    ids=["linear", "cosine", "flow", "edm"],
)
def test_image_and_noise_come_back_from_any_mixture(schedule, t):
    parameterization = Odd()
    x, eps = normal(4, 2, 3, 3, seed=1), normal(4, 2, 3, 3, seed=2)
    level, (a, b) = schedule(t), parameterization.mix(schedule, t)
    x_t = wide(level.alpha) * x + wide(level.sigma) * eps
    raw = wide(a) * x + wide(b) * eps
    prediction = Denoiser(Lookup(raw), GaussianProcess(schedule, parameterization, FixedSmall()))(x_t, t)
    # Conditioning: an error in F grows by sigma / det in x and alpha / det in eps.
    growth = wide((level.alpha.abs() + level.sigma + a.abs() + b.abs()) / (level.alpha * b - level.sigma * a).abs())
    assert ((prediction.x - x).abs() <= 1e-14 * growth * 100).all()
    assert ((prediction.eps - eps).abs() <= 1e-14 * growth * 100).all()
    assert torch.equal(prediction.raw, raw)
    assert prediction.variance is None


@pytest.mark.parametrize(("parameterization", "name"), [(Eps(), "epsilon"), (V(), "v_prediction"), (X(), "sample")])
def test_predicted_image_equals_diffusers(parameterization, name):
    theirs = DDPMScheduler(prediction_type=name, clip_sample=False)
    x_t, output = normal(2, 3, 4, 4, seed=1, dtype=torch.float32), normal(2, 3, 4, 4, seed=2, dtype=torch.float32)
    for index in (0, 10, 500, 999):
        t = torch.tensor(index + 1.0, dtype=torch.float64)
        ours = Denoiser(Lookup(output), GaussianProcess(Linear(), parameterization, FixedSmall()))(x_t, t).x
        expected = theirs.step(output, index, x_t, generator=torch.Generator()).pred_original_sample
        torch.testing.assert_close(ours, expected, rtol=2e-4, atol=1e-4)


def test_network_gets_ddpms_index():
    network = Lookup()
    denoiser = Denoiser(network, GaussianProcess(Linear(1000), Eps(), FixedSmall()))
    x_t = normal(3, 1, 2, 2, dtype=torch.float32)
    denoiser(x_t, times(1.0, 500.0, 1000.0))
    denoiser(x_t, torch.tensor(38.0, dtype=torch.float64))
    assert network.asked[0][1].tolist() == [0.0, 499.0, 999.0]
    assert network.asked[1][1].tolist() == [37.0, 37.0, 37.0]
    assert network.asked[0][1].dtype == torch.float32


def test_one_time_for_all_equals_a_time_a_image():
    denoiser = Denoiser(TinyNetwork(), GaussianProcess(Linear(), Eps(), FixedSmall()))
    x_t = normal(3, 2, 4, 4)
    one, each = denoiser(x_t, torch.tensor(70.0, dtype=torch.float64)), denoiser(x_t, times(70.0, 70.0, 70.0))
    torch.testing.assert_close(one.x, each.x, rtol=1e-14, atol=0)
    torch.testing.assert_close(one.eps, each.eps, rtol=1e-14, atol=0)


def test_condition_reaches_the_network():
    network = Lookup()
    denoiser = Denoiser(network, GaussianProcess(Linear(), Eps(), FixedSmall()))
    cond = {"label": torch.tensor([3, 4])}
    denoiser(normal(2, 1, 2, 2), times(1.0, 2.0), cond)
    assert network.asked[0][2] is cond
    assert denoiser.null_condition(cond)["label"].tolist() == [-1, -1]


@pytest.mark.parametrize("parameterization", [Eps(), V()])
def test_further_channels_are_the_variances(parameterization):
    x_t, output = normal(2, 3, 4, 4, seed=1), normal(2, 6, 4, 4, seed=2)
    t = times(5.0, 600.0)
    prediction = Denoiser(Lookup(output), GaussianProcess(Linear(), parameterization, FixedSmall()))(x_t, t)
    alone = Denoiser(Lookup(output[:, :3]), GaussianProcess(Linear(), parameterization, FixedSmall()))(x_t, t)
    assert torch.equal(prediction.variance, output[:, 3:])
    assert torch.equal(prediction.raw, output[:, :3])
    assert torch.equal(prediction.x, alone.x)
    assert torch.equal(prediction.eps, alone.eps)


@pytest.mark.parametrize("parameterization", [Eps(), V(), X()])
def test_float32_is_close_to_float64(parameterization):
    denoiser = Denoiser(TinyNetwork(), GaussianProcess(Linear(), parameterization, FixedSmall()))
    t = times(1.0, 10.0, 300.0, 1000.0)
    x_t = normal(4, 2, 4, 4)
    exact, rough = denoiser(x_t, t), denoiser(x_t.float(), t)
    assert rough.x.dtype == rough.eps.dtype == rough.raw.dtype == torch.float32
    level = Linear()(t)
    # Rounding is amplified by 1 / alpha on the way to x and by 1 / sigma on the way to eps.
    assert ((rough.x - exact.x).abs() <= 3e-6 / wide(level.alpha)).all()
    assert ((rough.eps - exact.eps).abs() <= 3e-6 / wide(level.sigma)).all()


def test_half_precision_output_is_taken_up():
    network = Lookup(normal(2, 1, 2, 2, dtype=torch.bfloat16))
    prediction = Denoiser(network, GaussianProcess(Linear(), Eps(), FixedSmall()))(
        normal(2, 1, 2, 2, dtype=torch.float32), times(3.0, 9)
    )
    assert prediction.x.dtype == prediction.eps.dtype == prediction.raw.dtype == torch.float32


def test_eps_from_x():
    x, eps, t = normal(3, 1, 2, 2, seed=1), normal(3, 1, 2, 2, seed=2), times(0.1, 0.5, 0.9)
    x_t = wide(1 - t) * x + wide(t) * eps
    torch.testing.assert_close(eps_from_x(x, x_t, FlowSchedule()(t)), eps, rtol=0, atol=1e-13)
