"""Each schedule against its definition, written for itself with more digits than float64."""

import numpy as np
import pytest
import torch
from diffusion_helpers import times

from langevin.diffusion.schedules.cosine_chen import CosineChen
from langevin.diffusion.schedules.cosine_log_snr import CosineLogSNR
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.quadratic import QuadraticSchedule
from langevin.diffusion.schedules.reciprocal import Reciprocal
from langevin.diffusion.schedules.sigmoid import SigmoidSchedule
from langevin.diffusion.schedules.sigmoid_log_snr import SigmoidLogSNR
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp import VP
from langevin.errors import UserError

U = np.concatenate([np.geomspace(1e-5, 0.01, 8), np.linspace(0.02, 1, 50)]).astype(np.longdouble)
PI = np.longdouble("3.14159265358979323846264338327950288")
STEPS = [None, 40, 1000]


def assert_follows(schedule, alpha: np.ndarray, sigma: np.ndarray, precision: float = 1e-12) -> None:
    """That the levels at the positions U of the schedule's range are these; the precision is absolute."""
    level = schedule(torch.from_numpy(U.astype(np.float64)) * schedule.t_max)
    np.testing.assert_allclose(level.alpha.numpy(), alpha.astype(np.float64), rtol=0, atol=precision)
    np.testing.assert_allclose(level.sigma.numpy(), sigma.astype(np.float64), rtol=0, atol=precision)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def assert_preserves(schedule, gamma: np.ndarray) -> None:
    # 1e-11: sigma is the root of a difference near the data.
    assert_follows(schedule, np.sqrt(gamma), np.sqrt(1 - gamma), precision=1e-11)


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize(
    ("start", "end", "tau"), [(0.0, 1.0, 1.0), (0.2, 1.0, 1.0), (0.2, 0.9, 2.0), (0.0, 1.0, 3.0), (0.0, 1.0, 0.5)]
)
def test_cosine_of_chen(num_steps, start, end, tau):
    first, f, last = (np.cos(PI / 2 * (start + u * (end - start))) ** (2 * tau) for u in (0 * U, U, 0 * U + 1))
    schedule = CosineChen(num_steps, start, end, tau, gamma_min=1e-4)
    assert_preserves(schedule, 1e-4 + np.longdouble(1 - 1e-4) * (last - f) / (last - first))


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize(("start", "end", "tau"), [(-3, 3, 1.0), (-3, 3, 0.3), (0, 3, 1.1), (-1, 2, 0.7)])
def test_sigmoid_of_chen(num_steps, start, end, tau):
    first, f, last = (logistic((start + u * (end - start)) / tau) for u in (0 * U, U, 0 * U + 1))
    schedule = SigmoidSchedule(num_steps, start, end, tau, gamma_min=0.0)
    assert_preserves(schedule, np.maximum((last - f) / (last - first), 0))


@pytest.mark.parametrize("schedule", [CosineChen(), SigmoidSchedule()])
def test_a_trace_of_signal_is_left_in_the_end(schedule):
    assert float(schedule(times(1.0)).alpha.square()) == pytest.approx(1e-9, rel=1e-12)


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize(("most", "least"), [(15, -15), (20, -20), (6, -9)])
def test_cosine_in_log_snr(num_steps, most, least):
    # tan(angle) is sigma / alpha, so that the level is a point on the unit circle.
    first, last = (np.arctan(np.exp(-np.longdouble(end) / 2)) for end in (most, least))
    angle = first + U * (last - first)
    assert_follows(CosineLogSNR(num_steps, most, least), np.cos(angle), np.sin(angle))


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize(
    ("start", "end", "tau", "most", "least"), [(-3, 3, 1.0, 15, -15), (-3, 3, 0.5, 10, -8), (0, 3, 1.1, 12, -20)]
)
def test_sigmoid_in_log_snr(num_steps, start, end, tau, most, least):
    first, f, last = (logistic((start + u * (end - start)) / np.longdouble(tau)) for u in (0 * U, U, 0 * U + 1))
    log_snr = most - (most - least) * (f - first) / (last - first)
    schedule = SigmoidLogSNR(num_steps, start, end, tau, most, least)
    assert_follows(schedule, np.sqrt(logistic(log_snr)), np.sqrt(logistic(-log_snr)))


@pytest.mark.parametrize("schedule", [CosineLogSNR(None, 9, -7), SigmoidLogSNR(40, -1, 4, 0.6, 9, -7)])
def test_log_snr_at_the_ends(schedule):
    ends = schedule(times(0.0, schedule.t_max)).log_snr
    assert ends.tolist() == pytest.approx([9, -7], abs=1e-12)


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize(("least", "most"), [(0.1, 20.0), (0.3, 4.0), (2.0, 2.0)])
def test_variance_preserving_sde(num_steps, least, most):
    # log alpha^2 is minus the integral of beta, a trapezium.
    integral = U * (least + (least + U * (np.longdouble(most) - least))) / 2
    assert_follows(VP(num_steps, least, most), np.exp(-integral / 2), np.sqrt(-np.expm1(-integral)))


def test_variance_preserving_sde_of_many_steps_is_ddpms_chain():
    # Score-SDE, appendix B: beta(t) = T beta_t, so that 0.1 and 20 are DDPM's 1e-4 and 0.02 at T = 1000.
    betas = np.linspace(1e-4, 0.02, 1000)
    chain = np.cumprod(1 - betas)[[0, 99, 499, 899]]
    ours = VP(1000)(times(1, 100, 500, 900)).alpha.square().numpy()
    np.testing.assert_allclose(np.log(ours), np.log(chain), rtol=0.02, atol=2e-4)


def test_variance_exploding_sde():
    assert_follows(VE(), 1 + 0 * U, 0.01 * np.longdouble(5000) ** U, precision=1e-11)
    sigma = VE(30, 0.02, 7.0)(torch.arange(31, dtype=torch.float64)).sigma.numpy()
    np.testing.assert_allclose(sigma, [0, *np.geomspace(0.02, 7.0, 30)], rtol=1e-13)


@pytest.mark.parametrize("schedule", [VE(None, 0.02, 7.0), VE(30, 0.02, 7.0), EDMSchedule(0.02, 7.0)])
def test_sampling_starts_from_sigma_max(schedule):
    assert schedule.prior_std == pytest.approx(7.0, rel=1e-13)
    assert schedule(times(schedule.t_min)).sigma.item() == pytest.approx(0.02, rel=1e-4)


def test_edms_time_is_sigma():
    schedule = EDMSchedule()
    assert (schedule.t_min, schedule.t_max, schedule.num_steps) == (0.002, 80.0, None)
    assert_follows(schedule, 1 + 0 * U, 80 * U, precision=1e-14)


@pytest.mark.parametrize("num_steps", STEPS)
def test_flow_is_a_straight_line(num_steps):
    assert_follows(FlowSchedule(num_steps), 1 - U, U, precision=1e-15)


@pytest.mark.parametrize(("num_steps", "rescale"), [(1000, True), (40, True), (300, False)])
def test_the_root_of_quadratics_beta_rises_evenly(num_steps, rescale):
    betas = QuadraticSchedule(num_steps, 8.5e-4, 0.012, rescale).betas.numpy() * (num_steps / 1000 if rescale else 1)
    np.testing.assert_allclose(np.diff(np.sqrt(betas)), (0.012**0.5 - 8.5e-4**0.5) / (num_steps - 1), rtol=1e-9)
    assert betas[[0, -1]] == pytest.approx([8.5e-4, 0.012], rel=1e-13)


def test_reciprocal_destroys_as_much_of_the_signal_at_every_step():
    betas = Reciprocal(1000).betas.numpy()
    assert betas[[0, -1]] == pytest.approx([1 / 1000, 1 / 2], rel=1e-15)
    np.testing.assert_allclose(np.diff(1 / betas), -998 / 999, rtol=1e-9)
    signal = Reciprocal(1000)(torch.arange(1001, dtype=torch.float64)).alpha.square().numpy()
    np.testing.assert_allclose(signal, 1 - np.arange(1001) / 1000, rtol=0, atol=2 / 1000)
    assert 0.5 / 1000 < signal[-1] < 2 / 1000


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: CosineChen(start=0.5, end=0.5), "end is 0.5; allowed: above start"),
        (lambda: SigmoidSchedule(start=1.0, end=-1.0), "end is -1.0; allowed: above start"),
        (lambda: SigmoidLogSNR(start=1.0, end=1.0), "end is 1.0; allowed: above start"),
        (lambda: SigmoidLogSNR(log_snr_max=-3.0, log_snr_min=3.0), "log_snr_max is -3.0; allowed: above log_snr_min"),
        (lambda: CosineLogSNR(log_snr_max=2.0, log_snr_min=2.0), "log_snr_max is 2.0; allowed: above log_snr_min"),
        (lambda: VP(beta_min=3.0, beta_max=2.0), "beta_max is 2.0; allowed: at least beta_min"),
        (lambda: VE(sigma_min=2.0, sigma_max=2.0), "sigma_max is 2.0; allowed: above sigma_min"),
        (lambda: EDMSchedule(sigma_min=2.0, sigma_max=1.0), "sigma_max is 1.0; allowed: above sigma_min"),
        (lambda: QuadraticSchedule(beta_start=0.02, beta_end=0.01), "beta_end is 0.01; allowed: at least beta_start"),
        (lambda: QuadraticSchedule(20), "betas must lie strictly between 0 and 1"),
    ],
)
def test_ends_in_the_wrong_order_are_reported(make, field):
    with pytest.raises(UserError, match=field):
        make()
