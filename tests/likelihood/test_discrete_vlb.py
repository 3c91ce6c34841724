import math

import numpy as np
import pytest
import torch
from helpers.draws import Given
from helpers.exact import Mixture
from likelihood_helpers import LEVELS, Nodes, normal
from scipy.integrate import quad
from scipy.stats import norm

from langevin.diffusion.process import Prediction
from langevin.diffusion.rescalings.zero_terminal_snr import ZeroTerminalSNR
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.vp import VP
from langevin.diffusion.variance import FixedLarge
from langevin.errors import UserError
from langevin.likelihood.discrete_vlb import DiscreteVLB

STEPS = Linear(6, beta_start=0.01, beta_end=0.6, rescale=False)
BYTE = LEVELS[170]


def begun(likelihood, schedule=STEPS):
    likelihood.begin(schedule)
    return likelihood


def integrated():
    """The bound's terms in bits for a pixel of BYTE, from their definition, by numerical integration; L_T last."""
    betas = np.linspace(0.01, 0.6, 6)
    kept = np.concatenate([[1.0], np.cumprod(1 - betas)])
    means, stds, weights = np.array([-0.6, 0.5]), np.array([0.2, 0.3]), np.array([0.4, 0.6])

    def image(x_t, t):
        marginal = np.sqrt(kept[t] * stds**2 + 1 - kept[t])
        odds = weights * norm.pdf(x_t, np.sqrt(kept[t]) * means, marginal)
        shrunk = means + np.sqrt(kept[t]) * stds**2 / marginal**2 * (x_t - np.sqrt(kept[t]) * means)
        return odds @ shrunk / odds.sum()

    def term(x_t, t):
        beta, before, now = betas[t - 1], kept[t - 1], kept[t]
        x_hat = image(x_t, t)
        if t == 1:
            std = np.sqrt(betas[1] * (1 - kept[1]) / (1 - kept[2]))
            lower, upper = np.sort(-np.abs(BYTE - x_hat + np.array([-1, 1]) / 255) / std)
            if abs(BYTE - x_hat) < 1 / 255:
                return -np.log(1 - norm.cdf(lower) - norm.cdf(upper))
            return -norm.logcdf(upper) - np.log(-np.expm1(norm.logcdf(lower) - norm.logcdf(upper)))
        true = beta * (1 - before) / (1 - now)
        gap = np.sqrt(before) * beta / (1 - now) * (BYTE - x_hat)
        return 0.5 * (np.log(beta / true) + (true + gap**2) / beta - 1)  # the model's variance is beta

    def expectation(t):
        def integrand(eps):
            return norm.pdf(eps) * term(np.sqrt(kept[t]) * BYTE + np.sqrt(1 - kept[t]) * eps, t)

        return quad(integrand, -8, 8, limit=200)[0]

    prior = 0.5 * (kept[6] * BYTE**2 + (1 - kept[6]) - 1 - np.log(1 - kept[6]))
    return np.array([*(expectation(t) for t in range(1, 7)), prior]) / math.log(2)


def test_its_terms_are_those_of_numerical_integration():
    count = 40_000
    metric = begun(DiscreteVLB())
    quantiles = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count).reshape(-1, 1, 1, 1)
    x = torch.full((count, 1, 1, 1), BYTE, dtype=torch.float64)
    metric.update(Mixture(STEPS, variance=FixedLarge()), x, None, Given(quantiles))
    values = metric.compute()
    assert list(values) == ["bits_per_dim", "prior", "steps", "decoder", "terms"]
    expected = integrated()
    np.testing.assert_allclose(values["terms"].numpy(), expected[:-1], rtol=1e-3)
    assert float(values["prior"]) == pytest.approx(expected[-1], rel=1e-9)
    assert float(values["decoder"]) == pytest.approx(float(values["terms"][0]), rel=1e-12)
    assert float(values["steps"]) == pytest.approx(float(values["terms"][1:].sum()), rel=1e-12)
    assert float(values["bits_per_dim"]) == pytest.approx(expected.sum(), rel=1e-3)


def test_random_times_leave_it_unbiased():
    count = 30_000
    denoise = Mixture(STEPS, variance=FixedLarge())
    exact = Nodes(np.array([BYTE])).bits(DiscreteVLB(), denoise)[1]["steps"].item()
    x = torch.full((count, 1, 1, 1), BYTE, dtype=torch.float64)
    for num_times in (1, 3):
        steps = DiscreteVLB(num_times).measure(denoise, x, None, normal(num_times, count))["steps"] / math.log(2)
        error = float(steps.std()) / math.sqrt(count)
        assert error < 0.01 * exact, "else this would show nothing: a time left out, or another weight, costs more"
        assert float(steps.mean()) == pytest.approx(exact, abs=4 * error)


def test_times_are_stratified_and_the_first_is_always_asked():
    """Half of the draws follow the fall of logSNR, half are even; each stratum has an equal part of them."""
    count = 5000
    schedule = Linear(13, beta_start=0.01, beta_end=0.5, rescale=False)
    kept = np.cumprod(1 - np.linspace(0.01, 0.5, 13))
    fall = -np.diff(np.log(kept / (1 - kept)))
    ends = np.concatenate([[0], np.cumsum((fall / fall.sum() + 1 / 12) / 2)])
    x = torch.zeros(count, 1, 1, 1).double()
    times, weights, terms = DiscreteVLB(4).terms(Mixture(schedule), x, None, normal(0, count))
    assert times.shape == weights.shape == terms.shape == (5, count)
    assert (times[0] == 1).all()
    assert (weights[0] == 1).all()
    for stratum, drawn in enumerate(times[1:]):
        part = np.clip(ends, stratum / 4, (stratum + 1) / 4)
        expected = 4 * count * np.diff(part)
        found = np.bincount(drawn.numpy(), minlength=14)[2:]
        assert (found[expected == 0] == 0).all()
        assert (np.abs(found - expected) <= 5 * np.sqrt(expected) + 1e-9).all()
    np.testing.assert_allclose(weights[1:], 1 / (4 * np.diff(ends)[times[1:].numpy() - 2]), rtol=1e-9)


def test_random_times_are_worth_more_where_terms_are_large():
    """On DDPM's thousand steps, eight times per image spread the bound several times less than even draws would."""
    count, schedule = 4000, Linear(1000)
    x = torch.full((count, 1, 1, 1), BYTE, dtype=torch.float64)
    likelihood = DiscreteVLB(8)
    drawn = likelihood.measure(Mixture(schedule), x, None, normal(0, count))["steps"]
    likelihood._probabilities = lambda schedule: torch.full((999,), 1 / 999, dtype=torch.float64)
    even = likelihood.measure(Mixture(schedule), x, None, normal(0, count))["steps"]
    error = float(torch.hypot(drawn.std(), even.std())) / math.sqrt(count)
    assert float(drawn.mean()) == pytest.approx(float(even.mean()), abs=4 * error)
    assert float(even.std()) > 2 * float(drawn.std())


def test_times_at_which_no_signal_is_left():
    schedule = ZeroTerminalSNR(Linear(50))
    assert float(schedule(torch.tensor(50.0, dtype=torch.float64)).alpha) == 0
    weights = DiscreteVLB()._probabilities(schedule)
    assert weights.isfinite().all()
    assert float(weights.min()) > 0.4 / 49
    assert float(weights.sum()) == pytest.approx(1)


def test_a_time_that_was_never_drawn_has_no_mean():
    schedule = Linear(40)
    metric = begun(DiscreteVLB(2), schedule)
    metric.update(Mixture(schedule), torch.zeros(3, 1, 1, 1).double(), None, normal(0, 3))
    terms = metric.compute()["terms"]
    assert terms.shape == (40,)
    known = terms.isfinite()
    assert known[0]
    assert 3 <= int(known.sum()) <= 7
    assert terms[~known].isnan().all()


@pytest.mark.parametrize("num_times", [None, 5, 6, 100])
def test_as_many_times_as_there_are_is_every_one(num_times):
    denoise = Mixture(STEPS)
    times, *_ = DiscreteVLB(num_times).terms(denoise, torch.zeros(2, 1, 1, 1).double(), None, normal(0, 2))
    assert times.tolist() == [[t, t] for t in range(1, 7)]
    assert denoise.calls == 6


class Beyond(Mixture):
    """Says that every image is 1.5."""

    def __call__(self, x_t, t, cond=None):
        x = torch.full_like(x_t, 1.5)
        return Prediction(x, x, x, None)


def test_clipping_is_a_prediction_of_one():
    x = torch.full((1, 1, 1, 1), BYTE, dtype=torch.float64)
    means, variances = [], FixedLarge()
    for clip in (True, False):
        likelihood = DiscreteVLB(clip=clip)
        *_, terms = likelihood.terms(Beyond(STEPS, variance=variances), x, None, normal(0, 1))
        means.append(terms[3])
    beta, before, now = 0.01 + 3 * 0.118, *np.cumprod(1 - np.linspace(0.01, 0.6, 6))[2:4]
    of_x = np.sqrt(before) * beta / (1 - now)
    difference = of_x**2 * ((1.5 - BYTE) ** 2 - (1 - BYTE) ** 2) / (2 * beta)
    assert float(means[1] - means[0]) == pytest.approx(difference, rel=1e-9)


def test_a_single_step():
    schedule = Linear(1, beta_start=0.5, beta_end=0.5, rescale=False)
    metric = begun(DiscreteVLB(3), schedule)
    metric.update(Mixture(schedule), torch.zeros(2, 1, 1, 1).double(), None, normal(0, 2))
    values = metric.compute()
    assert float(values["steps"]) == 0
    assert float(values["terms"]) == pytest.approx(float(values["decoder"]))
    assert float(values["bits_per_dim"]) == pytest.approx(float(values["prior"] + values["decoder"]))


def test_it_reports_it_of_continuous_time():
    with pytest.raises(UserError, match=r"the schedule is continuous; allowed: likelihoods=\[continuous_vlb\]"):
        DiscreteVLB().begin(VP())
