"""Every parameterization of conf/ on every schedule of conf/: what it predicts, and what is refused."""

import pytest
import torch
from conf_parts import PLAIN, SCHEDULES, component, every_combination, schedule_of, trained
from diffusion_helpers import normal, wide
from torch import nn

from langevin.config.validate import options
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import EDMParameterization, FlowParameterization, V
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.cosine_chen import CosineChen
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.variance import FixedSmall
from langevin.errors import UserError

PARAMETERIZATIONS = {option: component("parameterization", option) for option in options("parameterization")}
NEEDS_SIGNAL = {"eps", "score", "edm"}
NEEDS_STEPS = {"posterior_mean", "posterior_shift"}


def refusal(parameterization, schedule) -> str | None:
    """Why the two cannot go together."""
    try:
        parameterization.check(schedule)
    except UserError as error:
        return str(error)
    return None


def expected_refusal(option: str, name: str, schedule: Schedule) -> str | None:
    """A part of what should be."""
    without_signal = "zero_terminal_snr" in name or name.startswith("flow")
    if option in NEEDS_STEPS and schedule.num_steps is None:
        return "continuous; set schedule.num_steps"
    if option == "edm" and without_signal:
        return "log(sigma / alpha), which is infinite"
    if option in NEEDS_SIGNAL and without_signal:
        return "cannot recover the image at the schedule's last time"
    # cos^2 comes to rest at the quarter period, before its trace of signal is gone.
    if option == "flow" and name.startswith(("cosine_chen", "cosine-continuous")):
        return "cannot recover the image at the schedule's last time"
    return None


TOGETHER = {
    name: [option for option in PARAMETERIZATIONS if not expected_refusal(option, name, schedule)]
    for name, schedule in SCHEDULES.items()
}


@pytest.mark.slow
def test_what_cannot_be_predicted_is_refused_and_nothing_else():
    for name, schedule in every_combination()[0].items():
        for option, parameterization in PARAMETERIZATIONS.items():
            expected, message = expected_refusal(option, name, schedule), refusal(parameterization, schedule)
            assert (message is None) == (expected is None), (name, option, message)
            assert expected is None or expected in message, (name, option, message)


class Output(nn.Module):
    """Puts out what it was given."""

    def __init__(self, output) -> None:
        super().__init__()
        self.output = output

    def forward(self, x, c_noise, cond=None):
        assert x.isfinite().all()
        assert c_noise.isfinite().all()
        return self.output


@pytest.mark.parametrize("name", SCHEDULES, ids=lambda name: name.replace(" ", "+"))
def test_image_and_noise_come_back_from_their_mixture(name):
    schedule = SCHEDULES[name]
    t = trained(schedule)
    alpha, sigma = (wide(value) for value in schedule(t))
    x, eps = normal(len(t), 1, 1, 3, seed=1).clamp(-2, 2), normal(len(t), 1, 1, 3, seed=2).clamp(-2, 2)
    x_t = alpha * x + sigma * eps
    for option in TOGETHER[name]:
        parameterization = PARAMETERIZATIONS[option]
        a, b = (wide(value) for value in parameterization.mix(schedule, t))
        prediction = Denoiser(Output(a * x + b * eps), GaussianProcess(schedule, parameterization, FixedSmall()))(
            x_t, t
        )
        # The rounding of x_t and F, as the inverse of the 2x2 system carries it on.
        determinant = (alpha * b - sigma * a).abs()
        of_x_t, of_output = 2e-15 * (alpha + sigma), 2e-15 * (a.abs() + b.abs())
        of_x = (b.abs() * of_x_t + sigma * of_output) / determinant
        of_eps = (a.abs() * of_x_t + alpha * of_output) / determinant
        assert ((prediction.x - x).abs() <= of_x).all(), option
        assert ((prediction.eps - eps).abs() <= of_eps).all(), option
        # Which leaves digits enough: the worst is the mean of a step that hardly knows x, where sigmoid_log_snr ends.
        assert of_x.max() < 1e-7, option


def test_a_velocity_that_is_not_finite_is_refused():
    # Without a trace of signal, alpha falls to 0 as the root of gamma does, infinitely fast where gamma has a slope.
    schedule = CosineChen(gamma_min=0.0, tau=0.4)
    assert not FlowParameterization().mix(schedule, torch.ones((), dtype=torch.float64))[0].isfinite()
    assert "cannot recover the image" in refusal(FlowParameterization(), schedule)
    assert refusal(V(), schedule) is None


def test_a_denoiser_is_not_made_of_parts_that_do_not_go_together():
    with pytest.raises(UserError, match="infinite"):
        Denoiser(Output(None), GaussianProcess(schedule_of("flow"), EDMParameterization(), FixedSmall()))


@pytest.mark.parametrize("name", PLAIN)
def test_coefficients_are_float64_of_the_shape_of_the_times(name):
    schedule = PLAIN[name]
    for t in (torch.tensor(schedule.t_max, dtype=torch.float64), torch.full((2, 3), schedule.t_max).double()):
        for option in TOGETHER[name]:
            parameterization = PARAMETERIZATIONS[option]
            coefficients = (*parameterization.mix(schedule, t), parameterization.c_noise(schedule, t))
            for value in (*coefficients, parameterization.c_in(schedule(t))):
                assert (value.shape, value.dtype) == (t.shape, torch.float64), option
