import math

import numpy as np
import pytest
import torch
from helpers.exact import Mixture, slope
from likelihood_helpers import LEVELS, Nodes, normal
from scipy.special import logsumexp

from langevin.diffusion.level import Level
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp import VP
from langevin.errors import UserError
from langevin.likelihood.continuous_vlb import ContinuousVLB
from langevin.likelihood.discrete_vlb import DiscreteVLB
from langevin.likelihood.interval import Interval, byte_nll, time_at

BYTES = LEVELS[[40, 128, 200]]


@pytest.mark.slow
def test_it_is_the_limit_of_the_discrete_bound():
    """Between the same ends, 0.01 and 50, in ever more steps."""
    _, parts = Nodes(BYTES, places=True).bits(ContinuousVLB(400), Mixture(VE()))
    limit = parts["diffusion"]
    errors = {}
    for num_steps in (201, 401, 801):
        _, parts = Nodes(BYTES).bits(DiscreteVLB(clip=False), Mixture(VE(num_steps)))
        errors[num_steps - 1] = torch.from_numpy(parts["steps"] - limit)
    assert slope({steps: float(error.abs().max()) for steps, error in errors.items()}) == pytest.approx(1, abs=0.05)
    extrapolated = 2 * errors[800] - errors[400]
    assert float(extrapolated.abs().max()) < 1e-3
    assert limit.min() > 3


def test_it_does_not_depend_on_the_path_of_the_noise():
    """Schedules with the same ends, one of them discrete: the same bound."""
    bound = []
    for schedule in (VP(), Cosine(num_steps=None), Linear(1000), FlowSchedule()):
        likelihood = ContinuousVLB(100, log_snr_max=8.0, log_snr_min=-9.0)
        bound.append(Nodes(BYTES, places=True).bits(likelihood, Mixture(schedule))[0])
    np.testing.assert_allclose(bound, np.broadcast_to(bound[0], (4, 3)), atol=2e-4)


def test_random_times_leave_it_unbiased():
    count, x = 20_000, LEVELS[200]
    denoise = Mixture(VP())
    exact = Nodes(np.array([x]), places=True).bits(ContinuousVLB(400), denoise)[1]["diffusion"].item()
    for num_times in (1, 6):
        images = torch.full((count, 1, 1, 1), x, dtype=torch.float64)
        measured = ContinuousVLB(num_times).measure(denoise, images, None, normal(num_times, count))
        bits = measured["diffusion"] / math.log(2)
        error = float(bits.std()) / math.sqrt(count)
        assert error < 0.02 * exact
        assert float(bits.mean()) == pytest.approx(exact, abs=4 * error)


@pytest.mark.parametrize(
    ("schedule", "ends"),
    [
        (VP(), (13.3, float(VP()(torch.tensor(1.0, dtype=torch.float64)).log_snr))),
        (EDMSchedule(), (-2 * math.log(0.002), -2 * math.log(80))),
        (VE(), (-2 * math.log(0.01), -2 * math.log(50))),
        (FlowSchedule(), (13.3, -15.0)),  # of themselves 23 and minus infinity
    ],
)
def test_its_ends(schedule, ends):
    first, last = Interval(13.3, -15.0)(schedule)
    assert (float(first), float(last)) == pytest.approx(ends, rel=2e-3 if isinstance(schedule, VE) else 1e-9)
    for log_snr in (first, last):
        assert float(schedule(time_at(schedule, log_snr)).log_snr) == pytest.approx(float(log_snr), rel=1e-9)


def test_what_is_left_out_at_the_noisy_end_is_nothing():
    """Flow has no signal in the end: a further five of logSNR change less than a float32 can tell."""
    bound = [
        Nodes(BYTES, places=True).bits(
            ContinuousVLB(round(8 * (13.3 - end)), log_snr_min=end), Mixture(FlowSchedule())
        )[0]
        for end in (-15.0, -20.0)
    ]
    np.testing.assert_allclose(bound[0], bound[1], atol=1e-5)


@pytest.mark.parametrize("std", [1e-3, 5e-3, 0.03, 2.0])
def test_the_decoder_is_bayes_rule_over_the_bytes(std):
    level = Level(torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.8 * std, dtype=torch.float64))
    x = torch.from_numpy(LEVELS[[0, 3, 128, 255]]).repeat_interleave(25).reshape(1, 1, 10, 10)
    eps = torch.linspace(-6, 6, 25, dtype=torch.float64).repeat(4).reshape(1, 1, 10, 10)
    seen = (x + std * eps).numpy()
    logits = -((seen[..., None] - LEVELS) ** 2) / (2 * std**2)
    expected = logsumexp(logits, -1) + (std * eps.numpy()) ** 2 / (2 * std**2)
    np.testing.assert_allclose(byte_nll(x, eps, level).numpy(), expected, rtol=1e-10, atol=1e-12)


def test_bounds_that_cross():
    with pytest.raises(UserError, match=r"log_snr_max is -20.0; allowed: above log_snr_min \(-15.0\)"):
        ContinuousVLB(log_snr_max=-20.0)
    with pytest.raises(UserError, match=r"log_snr_max is -12.0; allowed: above the schedule's last, -8.76"):
        ContinuousVLB(log_snr_max=-12.0).check(EDMSchedule())
    with pytest.raises(UserError, match=r"log_snr_min is 13.0; allowed: below the schedule's first, 12.43"):
        ContinuousVLB(log_snr_min=13.0).check(EDMSchedule())
