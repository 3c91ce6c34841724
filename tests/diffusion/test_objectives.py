"""The bound as an objective, the two together, and which objective suits which model."""

import math

import numpy as np
import pytest
import torch
from diffusion_helpers import TinyNetwork, times
from scipy import stats
from torch import nn

from langevin.diffusion.bound import step_term
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.level import combine
from langevin.diffusion.objective import L1, Huber, Hybrid, Simple, VLBObjective
from langevin.diffusion.parameterization import Eps, V, X
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules import edm
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.sigmoid_log_snr import SigmoidLogSNR
from langevin.diffusion.time_sampler import UniformTimes
from langevin.diffusion.variance import FixedLarge, FixedSmall, LearnedRange
from langevin.diffusion.weighting import MinSNR, UnitEps, UnitX
from langevin.errors import UserError

T = 20
WEIGHTS = UnitEps()


class Constant(nn.Module):
    """Says the same of every image."""

    def __init__(self, value) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.as_tensor(value, dtype=torch.float64).reshape(1, -1, 1, 1))

    def forward(self, x, c_noise, cond=None):
        return self.value.to(x.dtype).expand(len(x), -1, *x.shape[2:])


class TwoHeads(nn.Module):
    """A network whose first channels and further channels have weights of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.variance = TinyNetwork(seed=1), TinyNetwork(seed=2)

    def forward(self, x, c_noise, cond=None):
        return torch.cat([self.mean(x, c_noise), self.variance(x, c_noise)], 1)


def images(n=1, dtype=torch.float64):
    levels = torch.randint(256, (n, 2, 3, 3), generator=torch.Generator().manual_seed(3))
    return (levels.double() * 2 / 255 - 1).to(dtype)


def noise(x, seed=0):
    return torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))


def evaluate(objective, denoiser, x, t, seed=0):
    return objective.terms(denoiser, x, denoiser.process.mix(x, noise(x, seed), t), None, t)


def two_headed(parameterization=None, schedule=None):
    return Denoiser(
        TwoHeads(), GaussianProcess(schedule or Linear(T, rescale=False), parameterization or Eps(), LearnedRange())
    )


@pytest.mark.parametrize("large", [False, True])
def test_the_mean_over_all_times_is_the_bound(large):
    """In closed form, for a model that predicts one and the same image, so that the noise plays no part."""
    value, levels = 0.25, torch.arange(154, 166, dtype=torch.float64)
    x = (levels * 2 / 255 - 1).reshape(1, 2, 2, 3)
    model = Denoiser(
        Constant([value, value]),
        GaussianProcess(Linear(T, rescale=False), X(), FixedLarge() if large else FixedSmall()),
    )
    t = torch.arange(1, T + 1, dtype=torch.float64)
    loss = evaluate(VLBObjective(UniformTimes()), model, x.expand(T, -1, -1, -1), t)["loss"].mean()

    betas = np.linspace(1e-4, 0.02, T)
    bar = np.concatenate([[1], np.cumprod(1 - betas)])
    tilde = betas * (1 - bar[:-1]) / (1 - bar[1:])
    x = x.numpy()
    decoder = stats.norm(value, math.sqrt(tilde[1]))  # the first step's variance is the second's
    bound = -np.mean(np.log(decoder.cdf(x + 1 / 255) - decoder.cdf(x - 1 / 255)))
    for i in range(1, T):  # from t = i + 1 to t = i
        variance = betas[i] if large else tilde[i]
        ratio = tilde[i] / variance
        gap = (math.sqrt(bar[i]) * betas[i] / (1 - bar[i + 1]) * (x - value)) ** 2 / variance
        bound += np.mean(0.5 * (ratio - 1 - math.log(ratio) + gap))
    assert loss.item() == pytest.approx(bound / math.log(2), rel=1e-9)


@pytest.mark.parametrize(
    "schedule", [Linear(T, rescale=False), Cosine(T), FlowSchedule(T)], ids=lambda s: type(s).__name__
)
def test_a_loss_is_t_terms_in_bits(schedule):
    model, x, t = two_headed(V(), schedule), images(4), times(1.0, 2.0, 11.0, T)
    x_t = combine(*[part for pair in zip(schedule(t), (x, noise(x)), strict=True) for part in pair])
    expected = T * step_term(model, model(x_t, t), x, t - 1, t) / math.log(2)
    assert (expected > 0).all()
    torch.testing.assert_close(
        evaluate(VLBObjective(UniformTimes()), model, x, t)["loss"], expected, rtol=1e-12, atol=0
    )


def gradients(objective, t):
    model = two_headed()
    terms = evaluate(objective, model, images(len(t)), t)
    terms["loss"].mean().backward()
    heads = {"mean": model.network.mean.weight.grad, "variance": model.network.variance.weight.grad}
    return terms, {name: torch.zeros_like(heads["mean"]) if grad is None else grad for name, grad in heads.items()}


@pytest.mark.parametrize("weighting", [UnitEps(), MinSNR()], ids=lambda w: type(w).__name__)
@pytest.mark.parametrize("vlb_weight", [0.001, 0.5])
def test_the_mean_learns_from_simple_and_the_variance_from_the_bound(weighting, vlb_weight):
    t = times(1.0, 2.0, 7.0, 20.0)
    simple, of_simple = gradients(Simple(UniformTimes(), weighting), t)
    bound, of_bound = gradients(VLBObjective(UniformTimes()), t)
    hybrid, of_hybrid = gradients(Hybrid(UniformTimes(), weighting, vlb_weight), t)
    assert of_simple["variance"].abs().max() == 0
    assert of_bound["mean"].abs().max() > 0.1  # it would teach the mean, if it were let
    assert of_simple["mean"].abs().max() > 0
    assert of_bound["variance"].abs().max() > 0
    torch.testing.assert_close(of_hybrid["mean"], of_simple["mean"], rtol=1e-12, atol=0)
    torch.testing.assert_close(of_hybrid["variance"], vlb_weight * of_bound["variance"], rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(hybrid["loss"], simple["loss"] + vlb_weight * bound["loss"], rtol=1e-12, atol=0)
    torch.testing.assert_close(hybrid["vlb"], bound["loss"], rtol=1e-12, atol=0)
    torch.testing.assert_close(hybrid["mse"], simple["mse"], rtol=1e-12, atol=0)
    assert not hybrid["vlb"].requires_grad


@pytest.mark.parametrize("value", [0.0, 3.0, -300.0])
@pytest.mark.parametrize(
    "schedule",
    [
        Linear(1000),
        Cosine(4000),
        FlowSchedule(1000),
        SigmoidLogSNR(1000),
        Linear(T, rescale=False),
        Cosine(1),
        FlowSchedule(1),
    ],
    ids=lambda s: f"{type(s).__name__}-{s.num_steps}",
)
@pytest.mark.parametrize(
    "objective", [VLBObjective(UniformTimes()), Hybrid(UniformTimes(), UnitX())], ids=lambda o: type(o).__name__
)
def test_gradients_are_finite_in_float32_at_every_time(objective, schedule, value):
    """Of a network that says anything: nothing, as at first, or something absurd."""
    steps = schedule.num_steps
    t = torch.arange(1, steps + 1, dtype=torch.float64)[:: max(steps // 50, 1)]
    t = torch.cat([t, times(steps)])
    network = Constant([value, -value, 0.3, -0.9]).float()
    model = Denoiser(network, GaussianProcess(schedule, V(), LearnedRange()))
    x = images(len(t), torch.float32)
    x[0], x[1:2] = 1.0, -1.0
    loss = evaluate(objective, model, x, t)["loss"]
    assert loss.isfinite().all()
    each = [torch.autograd.grad(term, network.value, retain_graph=True)[0].flatten() for term in loss]
    assert all(gradient.isfinite().all() for gradient in each)
    assert sum(gradient[:2].abs() for gradient in each).all()
    # In a single step there is nothing to choose: the variance is the step's own.
    assert sum(gradient[2:].abs() for gradient in each).all() == (steps > 1)


SUITS = [
    (Simple(UniformTimes(), WEIGHTS), Linear(), FixedSmall()),
    (L1(UniformTimes(), WEIGHTS), edm.EDMSchedule(), FixedLarge()),
    (Huber(UniformTimes(), WEIGHTS), FlowSchedule(), FixedLarge()),
    (VLBObjective(UniformTimes()), Linear(), FixedLarge()),
    (VLBObjective(UniformTimes()), FlowSchedule(10), LearnedRange()),
    (Hybrid(UniformTimes(), WEIGHTS), Cosine(), LearnedRange()),
]
REFUSED = [
    (
        Simple(UniformTimes(), WEIGHTS),
        Linear(),
        LearnedRange(),
        "does not train a learned variance; take objective=hybrid or ",
    ),
    (L1(UniformTimes(), WEIGHTS), Linear(), LearnedRange(), "does not train a learned variance"),
    (Huber(UniformTimes(), WEIGHTS), edm.EDMSchedule(), LearnedRange(), "does not train a learned variance"),
    (
        Hybrid(UniformTimes(), WEIGHTS),
        Cosine(),
        FixedSmall(),
        "the variance is fixed; take variance=learned_range, or objective=",
    ),
    (
        Hybrid(UniformTimes(), WEIGHTS),
        FlowSchedule(),
        LearnedRange(),
        "a sum over discrete steps, but the schedule is continuous; set ",
    ),
    (
        VLBObjective(UniformTimes()),
        FlowSchedule(),
        LearnedRange(),
        "the schedule is continuous; set schedule.num_steps, or take objective=simple",
    ),
    (VLBObjective(UniformTimes()), edm.EDMSchedule(), FixedSmall(), "the schedule is continuous"),
]


@pytest.mark.parametrize(("objective", "schedule", "variance"), SUITS)
def test_what_goes_together(objective, schedule, variance):
    objective.check(schedule, variance)


@pytest.mark.parametrize(("objective", "schedule", "variance", "words"), REFUSED)
def test_what_does_not(objective, schedule, variance, words):
    with pytest.raises(UserError, match=words):
        objective.check(schedule, variance)
