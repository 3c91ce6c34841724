"""The bound's terms against numerical integration and closed forms, on images of one pixel."""

import math

import mpmath
import numpy as np
import pytest
import torch
from diffusion_helpers import times
from torch.distributions import Normal, kl_divergence

from langevin.diffusion.bound import HALF_BIN, decoder_nll, gaussian_kl, prior_term, step_term
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess, Prediction, eps_from_x
from langevin.diffusion.schedules.beta import BetaSchedule
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.variance import FixedLarge, FixedSmall, LearnedRange

LEVELS = torch.arange(256, dtype=torch.float64) * (2 / 255) - 1
BETAS = np.array([0.3, 0.4, 0.5])
BAR = np.concatenate([[1.0], np.cumprod(1 - BETAS)])  # DDPM's alpha-bar for t = 0..3
X = float(LEVELS[180])


def reference_nll(x: float, mean: float, log_variance: float) -> float:
    """To fifty digits: the difference of two cumulative distributions, on the side where it does not cancel."""
    with mpmath.workdps(50):
        std = mpmath.exp(mpmath.mpf(log_variance) / 2)
        upper = mpmath.inf if x > 0.999 else (mpmath.mpf(x) - mean + mpmath.mpf(1) / 255) / std
        lower = -mpmath.inf if x < -0.999 else (mpmath.mpf(x) - mean - mpmath.mpf(1) / 255) / std
        if lower > 0:
            lower, upper = -upper, -lower
        mass = (mpmath.erfc(-upper / mpmath.sqrt(2)) - mpmath.erfc(-lower / mpmath.sqrt(2))) / 2
        return float(-mpmath.log(mass))


@pytest.mark.parametrize("log_variance", [-14.0, -9.0, -4.0, 0.0, 2.0])
@pytest.mark.parametrize("mean", [-3.0, -1.0, -0.2, 0.0, 0.7, 1.0, 2.5])
def test_the_decoder_is_the_mass_of_a_gaussian_on_each_level(mean, log_variance):
    x = LEVELS[[0, 1, 2, 100, 127, 128, 200, 254, 255]]
    expected = torch.tensor([reference_nll(float(level), mean, log_variance) for level in x], dtype=torch.float64)
    ours = decoder_nll(x, torch.full_like(x, mean), torch.tensor(log_variance, dtype=torch.float64))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-13)
    single = decoder_nll(x.float(), torch.full_like(x, mean).float(), torch.tensor(log_variance))
    # A bin's end is known to 6e-8, which counts the more the further out it lies, in standard deviations.
    torch.testing.assert_close(single.double(), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("log_variance", [-18.0, -10.0, -3.0, 1.0])
@pytest.mark.parametrize("mean", [-5.0, -1.0, 0.1234, 0.999, 30.0])
def test_the_levels_share_one_probability(mean, log_variance):
    nll = decoder_nll(LEVELS, torch.full_like(LEVELS, mean), torch.tensor(log_variance, dtype=torch.float64))
    assert torch.exp(-nll).sum().item() == pytest.approx(1, abs=1e-9)


def test_the_bins_are_those_of_bytes():
    assert pytest.approx(float(LEVELS[1] - LEVELS[0]) / 2, rel=1e-12) == HALF_BIN


@pytest.mark.parametrize("log_variance", [-60.0, -40.0, -14.0, 0.0, 12.0])
@pytest.mark.parametrize("mean", [-1e4, -1.0, 0.3, 1.0, 1e4])
def test_the_decoder_stays_finite_in_float32(mean, log_variance):
    x = LEVELS.float()
    mean, log_variance = torch.full_like(x, mean).requires_grad_(), torch.full_like(x, log_variance).requires_grad_()
    nll = decoder_nll(x, mean, log_variance)
    assert nll.isfinite().all()
    assert (nll >= 0).all()
    nll.sum().backward()
    assert mean.grad.isfinite().all()
    assert log_variance.grad.isfinite().all()


def test_the_decoders_gradient_leads_back_even_from_afar():
    mean = torch.tensor([-50.0, 50.0]).requires_grad_()
    decoder_nll(torch.tensor([0.2, 0.2]), mean, torch.tensor(-12.0)).sum().backward()
    slope = (mean.detach() - 0.2) * math.exp(12)
    torch.testing.assert_close(mean.grad, slope, rtol=1e-3, atol=0)


def test_the_divergence_is_torchs():
    generator = torch.Generator().manual_seed(0)
    difference, q, p = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    theirs = kl_divergence(Normal(difference, torch.exp(q / 2)), Normal(torch.zeros(()).double(), torch.exp(p / 2)))
    torch.testing.assert_close(gaussian_kl(difference, q, p), theirs, rtol=1e-11, atol=1e-14)


def test_the_divergence_of_nearly_equal_variances_does_not_drown_in_float32():
    gap = torch.tensor([1e-3, -1e-3, 1e-4, -1e-5])
    divergence = gaussian_kl(torch.zeros(4), gap, torch.zeros(4))
    torch.testing.assert_close(divergence, gap.square() / 4, rtol=1e-2, atol=0)


def test_the_priors_term_is_the_divergence_at_the_last_time():
    x = torch.tensor([X, -X], dtype=torch.float64).reshape(2, 1, 1, 1)
    q = Normal(BAR[3] ** 0.5 * x, math.sqrt(1 - BAR[3]))
    theirs = kl_divergence(q, Normal(torch.zeros_like(x), 1.0)).flatten()
    torch.testing.assert_close(prior_term(BetaSchedule(torch.from_numpy(BETAS)), x), theirs, rtol=1e-12, atol=0)
    # alpha = 1: the sampler starts from N(0, sigma_max^2), which does not know where the image lies.
    torch.testing.assert_close(prior_term(EDMSchedule(sigma_max=5.0), x), x.square().flatten() / 50, rtol=1e-12, atol=0)
    assert prior_term(FlowSchedule(), x).tolist() == [0, 0]


def test_the_priors_term_keeps_its_digits_in_float32():
    x = torch.full((1, 1, 1, 1), 0.1)
    exact = prior_term(Linear(), x.double())
    torch.testing.assert_close(prior_term(Linear(), x).double(), exact, rtol=1e-3, atol=0)


def normal(z, mean, variance):
    return np.exp(-((z - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


class Model:
    """What a network might say of one pixel: smooth in x_t, other at each time, and nothing exact."""

    def __init__(self, variance) -> None:
        self.schedule = BetaSchedule(torch.from_numpy(BETAS))
        self.process = GaussianProcess(self.schedule, Eps(), variance)

    @staticmethod
    def image(x_t, t):
        return np.tanh(0.8 * x_t + 0.1 * t)

    @staticmethod
    def fraction(x_t, t):
        """How large the variance is between beta-tilde and beta."""
        return 0.5 + 0.3 * np.sin(x_t + t)

    def __call__(self, x_t, t, cond=None):
        x = torch.from_numpy(self.image(x_t.numpy(), t.reshape(-1, 1, 1, 1).numpy()))
        output = 2 * torch.from_numpy(self.fraction(x_t.numpy(), t.reshape(-1, 1, 1, 1).numpy())) - 1
        return Prediction(x, eps_from_x(x, x_t, self.schedule(t)), x, output if self.process.variance.learned else None)

    def log_variance(self, x_t, t):
        """Of p(x_{t-1} | x_t), from DDPM's betas; the first step's beta-tilde is the second's (released code)."""
        large, small = BETAS[t - 1], (BETAS * (1 - BAR[:-1]) / (1 - BAR[1:]))[max(t - 1, 1)]
        if isinstance(self.process.variance, FixedLarge):
            return np.log(large if t > 1 else small) + 0 * x_t
        if not self.process.variance.learned:
            return np.log(small) + 0 * x_t
        f = self.fraction(x_t, t)
        return f * np.log(large) + (1 - f) * np.log(small)

    def mean(self, x_t, t):
        """Of p(x_{t-1} | x_t). DDPM, equation 7, at the predicted image."""
        alpha, before, now = 1 - BETAS[t - 1], BAR[t - 1], BAR[t]
        of_x, of_x_t = math.sqrt(before) * BETAS[t - 1] / (1 - now), math.sqrt(alpha) * (1 - before) / (1 - now)
        return of_x * self.image(x_t, t) + of_x_t * x_t


VARIANCES = [FixedSmall(), FixedLarge(), LearnedRange()]
GRID = np.linspace(-7, 7, 141)
STEP = GRID[1] - GRID[0]


def terms(model, t, x_t):
    """Our term of the step from t to t - 1 at each of the noisy images (N,)."""
    t = times(*[t] * len(x_t))
    x_t = torch.from_numpy(x_t).reshape(-1, 1, 1, 1)
    return step_term(model, model(x_t, t), torch.full_like(x_t, X), t - 1, t).numpy()


@pytest.mark.parametrize("variance", VARIANCES, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("t", [2, 3])
def test_a_step_is_the_integral_of_its_divergence(variance, t):
    """q(x_s | x_t, x) by Bayes from the forward process; nothing is taken from the posterior's formulas."""
    model, x_t = Model(variance), np.array([-1.3, 0.0, 0.4, 2.0])
    x_s = np.linspace(-8, 8, 4001)[:, None]
    q = normal(x_t, np.sqrt(1 - BETAS[t - 1]) * x_s, BETAS[t - 1]) * normal(x_s, BAR[t - 1] ** 0.5 * X, 1 - BAR[t - 1])
    q /= q.sum(0) * (x_s[1] - x_s[0])
    p = normal(x_s, model.mean(x_t, t), np.exp(model.log_variance(x_t, t)))
    divergence = np.where(q > 0, q * np.log(np.where(q > 0, q, 1) / np.maximum(p, 1e-300)), 0).sum(0)
    np.testing.assert_allclose(terms(model, t, x_t), divergence * (x_s[1] - x_s[0]), rtol=1e-8)


@pytest.mark.parametrize("variance", VARIANCES, ids=lambda v: type(v).__name__)
def test_the_last_step_is_the_decoder(variance):
    model, x_1 = Model(variance), np.array([-1.3, 0.0, 0.4, 2.0])
    expected = [
        reference_nll(X, float(model.image(z, 1)), float(model.log_variance(z, 1))) for z in x_1
    ]  # at t = 1 the posterior's mean is the image itself
    np.testing.assert_allclose(terms(model, 1, x_1), expected, rtol=1e-9)


@pytest.mark.parametrize("variance", VARIANCES, ids=lambda v: type(v).__name__)
def test_the_terms_add_up_to_the_negative_elbo(variance):
    """E_q[log q(x_1, x_2, x_3 | x) - log p(x_1, x_2, x_3) - log P(x | x_1)], summed over a grid of all three."""
    model = Model(variance)
    x_1, x_2, x_3 = GRID[:, None, None], GRID[None, :, None], GRID[None, None, :]
    forward, log_q, log_p = 1.0, 0.0, -0.5 * (x_3**2 + math.log(2 * math.pi))
    for t, (before, now) in enumerate([(X, x_1), (x_1, x_2), (x_2, x_3)], start=1):
        density = normal(now, math.sqrt(1 - BETAS[t - 1]) * before, BETAS[t - 1])
        forward, log_q = forward * density, log_q + np.log(np.maximum(density, 1e-300))
    for t, (before, now) in {2: (x_1, x_2), 3: (x_2, x_3)}.items():
        log_variance = model.log_variance(now, t)
        log_p = log_p - 0.5 * (
            (before - model.mean(now, t)) ** 2 * np.exp(-log_variance) + log_variance + math.log(2 * math.pi)
        )
    decoded = [-reference_nll(X, float(model.image(z, 1)), float(model.log_variance(z, 1))) for z in GRID]
    log_p = log_p + np.array(decoded)[:, None, None]
    elbo = (forward * (log_q - log_p)).sum() * STEP**3

    ours = prior_term(model.schedule, torch.full((1, 1, 1, 1), X, dtype=torch.float64)).item()
    for t in (1, 2, 3):
        ours += (normal(GRID, BAR[t] ** 0.5 * X, 1 - BAR[t]) * terms(model, t, GRID)).sum() * STEP
    assert ours == pytest.approx(elbo, rel=1e-8)


def test_terms_are_means_over_the_images_values():
    model, t = Model(FixedLarge()), times(1.0, 3.0)
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(2, 2, 2, 3, generator=generator, dtype=torch.float64)
    x = LEVELS[torch.randint(256, x_t.shape, generator=generator)]
    whole = step_term(model, model(x_t, t), x, t - 1, t)
    assert whole.shape == (2,)
    for row in (0, 1):
        pixels, pixel_x = x_t[row].reshape(-1, 1, 1, 1), x[row].reshape(-1, 1, 1, 1)
        each = step_term(model, model(pixels, t[row].expand(12)), pixel_x, t[row] - 1, t[row])
        assert whole[row].item() == pytest.approx(each.mean().item(), rel=1e-12)
    torch.testing.assert_close(
        prior_term(model.schedule, x)[1], prior_term(model.schedule, x[1].reshape(-1, 1, 1, 1)).mean()
    )
