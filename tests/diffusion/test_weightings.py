"""Each weighting against its paper's, stated as there: on the error of x, of eps, of v, or of the network's output."""

import numpy as np
import pytest
import torch
from conf_parts import PLAIN, SCHEDULES, component, trained
from diffusion_helpers import times
from omegaconf import OmegaConf
from scipy.integrate import quad

from langevin.assembly.make import make
from langevin.config.validate import CONF, options
from langevin.diffusion import parameterization
from langevin.diffusion.schedules import edm
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.cosine_log_snr import CosineLogSNR
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.vp import VP
from langevin.diffusion.weighting import (
    P2,
    EDMWeighting,
    MinSNR,
    SigmoidWeighting,
    TruncatedSNR,
    UnitEps,
    UnitFlow,
    UnitV,
    UnitX,
    VLBWeighting,
)

X_ERROR = 0.37
"""An error of x at a given x_t."""


def eps_error(schedule, t):
    """The error of eps that comes with it, for alpha x + sigma eps stays."""
    alpha, sigma = schedule(t)
    return -alpha / sigma * X_ERROR


def v_error(schedule, t):
    """That of v = alpha eps - sigma x."""
    alpha, sigma = schedule(t)
    return alpha * eps_error(schedule, t) - sigma * X_ERROR


WEIGHTINGS = {option: component("weighting", option) for option in options("weighting")}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=[name.replace(" ", "+") for name in SCHEDULES])
def test_every_weight_is_finite_and_none_is_negative(schedule):
    t = trained(schedule)
    for option, weighting in WEIGHTINGS.items():
        weight = weighting(schedule, t)
        assert (weight.shape, weight.dtype) == (t.shape, torch.float64), option
        assert weight.isfinite().all(), option
        assert (weight >= 0).all(), option
        assert weight[:-1].min() > 0, option  # at the last, no signal may be left that could tell x from x_t


@pytest.fixture(params=PLAIN)
def schedule(request):
    return PLAIN[request.param]


def assert_loss(weighting, schedule, expected) -> None:
    """That the weighted squared error of x is the loss the paper states."""
    t = trained(schedule)
    torch.testing.assert_close(weighting(schedule, t) * X_ERROR**2, expected(t), rtol=1e-11, atol=0)


def test_unit_eps(schedule):
    assert_loss(UnitEps(), schedule, lambda t: eps_error(schedule, t) ** 2)


def test_unit_x(schedule):
    assert_loss(UnitX(), schedule, lambda t: torch.full_like(t, X_ERROR**2))


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), VP()])
def test_unit_v(schedule):
    assert_loss(UnitV(), schedule, lambda t: v_error(schedule, t) ** 2)


def test_unit_flow(schedule):
    assert_loss(UnitFlow(), schedule, lambda t: (eps_error(schedule, t) - X_ERROR) ** 2)


def test_unit_flow_on_straight_lines_is_the_error_of_the_velocity():
    t = trained(FlowSchedule())
    a, b = parameterization.FlowParameterization().mix(FlowSchedule(), t)
    assert_loss(UnitFlow(), FlowSchedule(), lambda t: (a * X_ERROR + b * eps_error(FlowSchedule(), t)) ** 2)


def test_truncated_snr_is_the_larger_of_the_two_errors(schedule):
    # Salimans and Ho 2022, section 4: max(|x - x_theta|^2, |eps - eps_theta|^2).
    assert_loss(TruncatedSNR(), schedule, lambda t: (eps_error(schedule, t) ** 2).clamp(min=X_ERROR**2))


@pytest.mark.parametrize("gamma", [5.0, 1.0])
def test_min_snr(schedule, gamma):
    # Hang et al. 2023: on eps min(gamma / SNR, 1).
    def on_eps(t):
        return (gamma / schedule(t).snr).clamp(max=1) * eps_error(schedule, t) ** 2

    t = trained(schedule)
    alive = t[schedule(t).alpha > 0]
    ours = MinSNR(gamma)(schedule, alive) * X_ERROR**2
    torch.testing.assert_close(ours, on_eps(alive), rtol=1e-11, atol=0)


def test_min_snr_on_v():
    # Ibidem: on v min(SNR, gamma) / (SNR + 1).
    snr = VP()(trained(VP())).snr
    assert_loss(MinSNR(5.0), VP(), lambda t: snr.clamp(max=5) / (snr + 1) * v_error(VP(), t) ** 2)


@pytest.mark.parametrize(("k", "gamma"), [(1.0, 1.0), (1.0, 0.5), (0.5, 2.0)])
def test_p2(schedule, k, gamma):
    # Choi et al. 2022, equation 8, on the error of eps.
    assert_loss(P2(k, gamma), schedule, lambda t: eps_error(schedule, t) ** 2 / (k + schedule(t).snr) ** gamma)


def test_p2_without_gamma_is_l_simple(schedule):
    t = trained(schedule)
    torch.testing.assert_close(P2(gamma=0.0)(schedule, t), UnitEps()(schedule, t), rtol=1e-15, atol=0)


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_edm_is_its_tables(sigma_data):
    sigma = trained(edm.EDMSchedule())
    expected = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    torch.testing.assert_close(EDMWeighting(sigma_data)(edm.EDMSchedule(), sigma), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_edm_makes_the_networks_output_count_alike(schedule, sigma_data):
    # x = c_skip x_t + c_out F: the error of F counts 1.
    t = trained(schedule)
    alpha, sigma = schedule(t)
    c_out = sigma * sigma_data / torch.sqrt(sigma**2 + (alpha * sigma_data) ** 2)
    torch.testing.assert_close(EDMWeighting(sigma_data)(schedule, t) * c_out**2, torch.ones_like(t), rtol=1e-11, atol=0)
    a, b = parameterization.EDMParameterization(sigma_data).mix(schedule, t)
    output_error = a * X_ERROR + b * eps_error(schedule, t)
    assert_loss(EDMWeighting(sigma_data), schedule, lambda t: output_error**2)


@pytest.mark.parametrize(
    ("around", "sigma_data"),
    [
        ({"_target_": "langevin.diffusion.parameterization.EDMParameterization", "sigma_data": 0.7}, 0.7),
        ({"_target_": "langevin.diffusion.parameterization.Eps"}, 0.5),
    ],
)
def test_edm_takes_its_sigma_data_from_the_parameterization(around, sigma_data):
    cfg = OmegaConf.create({"parameterization": around, "weighting": OmegaConf.load(CONF / "weighting" / "edm.yaml")})
    assert make(cfg, "weighting").sigma_data == sigma_data


DISCRETE = {name: schedule for name, schedule in PLAIN.items() if schedule.num_steps is not None}
CONTINUOUS = {name: schedule for name, schedule in PLAIN.items() if schedule.num_steps is None}


@pytest.mark.parametrize("schedule", [Linear(), Linear(40), Cosine(1000), VP(1000)])
def test_vlb_with_steps_is_t_times_the_divergence_of_each(schedule):
    # DDPM, equations 7 and 10: |mu - mu_theta|^2 / (2 beta-tilde); mu has sqrt(bar before) beta / (1 - bar) of x.
    t = torch.arange(1, schedule.num_steps + 1, dtype=torch.float64)
    bar = schedule(t).alpha.square().numpy().astype(np.longdouble)
    noise = schedule(t).sigma.square().numpy().astype(np.longdouble)  # 1 - bar, with its digits
    before, less = np.concatenate([[1], bar[:-1]]), np.concatenate([[0], noise[:-1]])
    beta = 1 - bar / before
    tilde = less / noise * beta
    tilde[0] = tilde[1]  # clipped
    expected = schedule.num_steps * (np.sqrt(before) * beta / noise) ** 2 / (2 * tilde)
    np.testing.assert_allclose(VLBWeighting()(schedule, t).numpy(), expected.astype(np.float64), rtol=1e-9)


@pytest.mark.parametrize("schedule", DISCRETE.values(), ids=DISCRETE.keys())
def test_vlb_with_steps_telescopes(schedule):
    steps = schedule.num_steps
    t = torch.arange(2, steps + 1, dtype=torch.float64)
    first, last = schedule(times(1.0, steps)).snr
    total = VLBWeighting()(schedule, t).sum() / steps
    torch.testing.assert_close(total, (first - last) / 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS.keys())
def test_vlb_in_continuous_time_telescopes(schedule):
    # The mean over uniform times in units of the whole, taken in log t, where the weight is smooth.
    def integrand(log_t: float) -> float:
        t = times(np.exp(log_t))
        return float(VLBWeighting()(schedule, t) * t) / schedule.t_max

    low, high = 0.02 * schedule.t_max, 0.9 * schedule.t_max
    total, _ = quad(integrand, np.log(low), np.log(high), epsrel=1e-10, limit=200)
    first, last = schedule(times(low, high)).snr.tolist()
    assert total == pytest.approx((first - last) / 2, rel=1e-9)


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS.keys())
def test_vlb_in_continuous_time_is_the_slope_of_the_snr(schedule):
    t = schedule.t_max * torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    h = 1e-4 * schedule.t_max
    steps = [schedule(t + k * h).snr for k in (-2, -1, 1, 2)]
    slope = (steps[0] - 8 * steps[1] + 8 * steps[2] - steps[3]) / (12 * h)
    torch.testing.assert_close(VLBWeighting()(schedule, t), -schedule.t_max * slope / 2, rtol=1e-7, atol=1e-8)


def test_vlb_of_many_steps_is_that_of_continuous_time():
    t = torch.arange(100, 1001, dtype=torch.float64)
    torch.testing.assert_close(VLBWeighting()(VP(1000), t), VLBWeighting()(VP(), (t - 0.5) / 1000), rtol=1e-4, atol=0)


def test_vlbs_first_step_is_the_decoders_wherever_the_schedule_begins():
    # With a little noise at the data, too, the first step's weight is that of a Gaussian of the second's variance.
    for schedule in (Linear(40), CosineLogSNR(40)):
        s, t = schedule(times(1.0)), schedule(times(2.0))
        posterior = (1 - t.snr / s.snr) * s.sigma**2  # VDM, appendix A: sigma^2_{t|s} sigma_s^2 / sigma_t^2
        torch.testing.assert_close(VLBWeighting()(schedule, times(1.0)), 20 / posterior, rtol=1e-12, atol=0)


@pytest.mark.parametrize("bias", [2.0, -1.0])
def test_sigmoid_is_the_bound_with_less_weight_where_little_noise_is(schedule, bias):
    t = trained(schedule)
    alpha, sigma = schedule(t)
    # The logistic function of bias - log SNR is 1 / (1 + exp(-bias) SNR).
    share = sigma**2 / (sigma**2 + alpha**2 * np.exp(-bias))
    torch.testing.assert_close(
        SigmoidWeighting(bias)(schedule, t), VLBWeighting()(schedule, t) * share, rtol=1e-11, atol=0
    )


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS.keys())
def test_sigmoid_is_kingma_and_gaos(schedule):
    # Kingma and Gao 2023, equation 3: w(log SNR) / 2 times minus the slope of log SNR, on the error of eps.
    t = schedule.t_max * torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    h = 1e-4 * schedule.t_max
    steps = [schedule(t + k * h).log_snr for k in (-2, -1, 1, 2)]
    slope = (steps[0] - 8 * steps[1] + 8 * steps[2] - steps[3]) / (12 * h)
    expected = -schedule.t_max * slope / 2 * torch.sigmoid(2.0 - schedule(t).log_snr) * eps_error(schedule, t) ** 2
    torch.testing.assert_close(SigmoidWeighting(2.0)(schedule, t) * X_ERROR**2, expected, rtol=1e-7, atol=0)
