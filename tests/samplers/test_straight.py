"""The coordinates in which a prediction is a straight line."""

import pytest
import torch

from langevin.diffusion.process import Prediction
from langevin.diffusion.rescalings.input_scaling import InputScaling
from langevin.diffusion.rescalings.resolution_shift import ResolutionShift
from langevin.diffusion.rescalings.zero_terminal_snr import ZeroTerminalSNR
from langevin.diffusion.schedules.cosine_chen import CosineChen
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.vp import VP
from langevin.samplers.straight import StraightLines

WITH_SIGNAL = [VP(), Linear(), EDMSchedule(), CosineChen(), InputScaling(VP())]
WITHOUT = [
    FlowSchedule(),
    FlowSchedule(10),
    ZeroTerminalSNR(Linear()),
    ZeroTerminalSNR(VP()),
    CosineChen(gamma_min=0.0),
    ResolutionShift(FlowSchedule(), 128),
    InputScaling(ZeroTerminalSNR(Linear())),
]


@pytest.mark.parametrize("schedule", WITH_SIGNAL, ids=lambda s: type(s).__name__)
def test_edms_coordinates_where_some_signal_is_left(schedule):
    times = schedule.t_max * torch.linspace(0, 1, 7, dtype=torch.float64)
    lines = StraightLines(schedule)
    assert torch.equal(lines.scale(times), schedule(times).alpha)
    assert torch.equal(lines.tau(times), schedule(times).ratio)


@pytest.mark.parametrize("schedule", WITHOUT, ids=lambda s: type(s).__name__)
def test_finite_coordinates_where_none_is_left(schedule):
    times = schedule.t_max * torch.linspace(0, 1, 7, dtype=torch.float64)
    tau = StraightLines(schedule).tau(times)
    assert (tau.diff() > 0).all()
    torch.testing.assert_close(tau[[0, -1]], torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_on_the_flow_schedule_they_are_flow_matchings_own():
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    lines = StraightLines(FlowSchedule())
    torch.testing.assert_close(lines.tau(t), t, rtol=0, atol=1e-15)
    torch.testing.assert_close(lines.scale(t), torch.ones_like(t), rtol=0, atol=1e-15)
    x, eps = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64)
    assert torch.equal(lines.slope(Prediction(x, eps, eps, None)), eps - x)


@pytest.mark.parametrize("schedule", WITH_SIGNAL + WITHOUT, ids=lambda s: type(s).__name__)
def test_a_constant_prediction_is_followed_exactly(schedule):
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 3, 1, 2, 2, generator=generator, dtype=torch.float64)
    lines = StraightLines(schedule)
    fractions = torch.tensor([1.0, 0.7, 0.2, 0.0], dtype=torch.float64)
    for t, s in zip(schedule.t_max * fractions, schedule.t_max * fractions[1:], strict=False):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        x_s = lines.move(alpha_t * x + sigma_t * eps, lines.slope(Prediction(x, eps, eps, None)), t, s)
        torch.testing.assert_close(x_s, alpha_s * x + sigma_s * eps, rtol=0, atol=1e-11)
