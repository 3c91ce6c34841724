"""Every method: on a correlated Gaussian, whose posterior is known, and beside other libraries' code."""

import functools

import numpy as np
import pytest
import torch
from experiments.exact_gaussian import COV, MEAN, CorrelatedGaussian, matrix_of, posterior
from helpers.draws import Given

from langevin.diffusion.draws import SampleDraws
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.ve import VE
from langevin.restoration.ddnm import DDNM
from langevin.restoration.dps import DPS
from langevin.restoration.ilvr import ILVR
from langevin.restoration.mmps import MMPS
from langevin.restoration.operators.average import Average
from langevin.restoration.operators.masking import Masking
from langevin.restoration.pigdm import PiGDM
from langevin.restoration.repaint import RePaint
from langevin.restoration.restoration import Measurement
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.ddim import DDIM
from langevin.samplers.sampler import Predictor
from langevin.samplers.timestep_spacing import QuadraticSpacing, UniformSpacing

SHAPE = (1, 2, 2)


class Known(Masking):
    """A mask of which some pixels of two by two are known."""

    def __init__(self, *known):
        super().__init__()
        self.pixels = known

    def unknown(self, height, width):
        unknown = torch.ones(height * width, dtype=torch.bool)
        unknown[list(self.pixels)] = False
        return unknown.reshape(height, width)


def ddim(steps, eta=0.0, spacing=UniformSpacing):
    return DDIM(spacing(), None, steps, eta)


def ancestral(steps):
    return Ancestral(UniformSpacing(), None, steps)


def restored(method, sampler, operator, y, noise=0.0, number=2000, seed=0, schedule=None):
    """Samples (number, 1, 2, 2) given one measurement."""
    denoise = CorrelatedGaussian(Linear() if schedule is None else schedule)
    draws, other = (SampleDraws(seed + add, range(number), SHAPE) for add in (0, 2**63))
    measurement = Measurement(y.expand(number, *y.shape), operator, noise, SHAPE, lambda z: z)
    steered, walk = method(denoise, measurement, sampler.times(denoise.schedule), other)
    made = sampler(steered, draws, walk=walk)
    return operator.projected(made, measurement.y) if method.is_exact and noise == 0 else made


@functools.cache
def errors(method, sampler, operator, noise=0.0, number=2000):
    """The worst error of the mean in units of the posterior's standard deviation, and the ratios of the deviations."""
    x = torch.tensor([0.5, -0.6, 0.4, -0.2]).reshape(1, *SHAPE)
    y = operator(x)[0]
    made = restored(method, sampler, operator, y, noise, number).flatten(1).double()
    mean, cov = posterior(MEAN, COV, matrix_of(operator, SHAPE), y.flatten(), noise**2)
    values, axes = torch.linalg.eigh(cov)
    free = values > 1e-6
    gaps = ((made.mean(0) - mean) @ axes)[free] / values[free].sqrt()
    sds = ((made - made.mean(0)) @ axes[:, free]).std(0) / values[free].sqrt()
    return float(gaps.abs().max()), sds.numpy()


HALF = Known(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "operator", [pytest.param(HALF, id="mask", marks=pytest.mark.slow), pytest.param(Average(2), id="average")]
)
@pytest.mark.parametrize("noise", [0.0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_moment_matching_is_exact(operator, noise):
    gap, ratios = errors(MMPS(4), ddim(250, spacing=QuadraticSpacing), operator, noise, 4000)
    assert gap < 0.06
    np.testing.assert_allclose(ratios, 1, atol=0.06)


@pytest.mark.slow
def test_going_back_and_forth_brings_the_unknown_part_closer():
    gaps = [errors(RePaint(10, repeats), ancestral(100), HALF, number=1000)[0] for repeats in (1, 4)]
    assert gaps[0] > gaps[1] + 0.06


@pytest.mark.slow
def test_repaint_of_many_repeats_is_nearly_exact():
    gap, ratios = errors(RePaint(10, 10), ancestral(250), HALF, number=1000)
    assert gap < 0.12  # 0.25 without repeats
    np.testing.assert_allclose(ratios, 1, atol=0.1)


@pytest.mark.slow
def test_the_methods_are_as_good_as_they_are_known_to_be():
    """DDNM, PiGDM and DPS are biased by design: DDNM less so the more noise is renewed."""
    none, some, all_of_it = (errors(DDNM(), ddim(100, eta), HALF)[0] for eta in (0.0, 0.85, 1.0))
    assert 0.4 > none > some > all_of_it - 0.02
    assert errors(PiGDM(), ddim(100), HALF)[0] < 0.4
    assert errors(DPS(0.3), ancestral(300), HALF)[0] < 0.6
    assert errors(MMPS(4), ddim(100), HALF)[0] < 0.1


METHODS = [DDNM(), PiGDM(0.3), MMPS(2), DPS(0.5), RePaint(3, 2), RePaint(10, 1), ILVR()]


@pytest.mark.parametrize("method", [method for method in METHODS if method.is_exact])
@pytest.mark.parametrize("operator", [Average(2), HALF], ids=["average", "mask"])
def test_exact_measurements_are_met(method, operator):
    y = operator(torch.tensor([0.5, -0.6, 0.4, -0.2]).reshape(1, *SHAPE))
    made = restored(method, ancestral(10), operator, y[0], number=3)
    torch.testing.assert_close(operator(made), y.expand_as(operator(made)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", [each for each in METHODS if getattr(each, "jump_repeats", 1) == 1])
def test_where_nothing_is_known_it_is_plain_sampling_to_the_bit(method):
    sampler, nothing = ancestral(10), Known()
    plain = sampler(CorrelatedGaussian(Linear()), SampleDraws(0, range(3), SHAPE))
    assert torch.equal(plain, restored(method, sampler, nothing, torch.zeros(SHAPE), number=3))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", [FlowSchedule(), EDMSchedule(), VE()], ids=lambda each: type(each).__name__)
def test_any_schedule_will_do(method, schedule):
    """Also one that leaves nothing of the samples at its first time, and those whose samples grow with time."""
    y = torch.tensor([0.5, -0.6, 0, 0]).reshape(SHAPE)
    made = restored(method, ddim(20), HALF, y, number=500, schedule=schedule).flatten(1).double()
    assert made.isfinite().all()
    mean, cov = posterior(MEAN, COV, matrix_of(HALF, SHAPE), y.flatten(), 0)
    assert float((made.mean(0) - mean)[2:].abs().max()) < float(cov.diagonal()[2:].min().sqrt())


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_does_not_depend_on_the_others(method):
    y = Average(2)(torch.tensor([0.5, -0.6, 0.4, -0.2]).reshape(1, *SHAPE))[0]
    many, one = (restored(method, ancestral(10), Average(2), y, number=number) for number in (4, 1))
    torch.testing.assert_close(many[:1], one, atol=1e-6, rtol=0)


class Saved:
    """A tensor that a graph keeps; how many there are, and at most were."""

    now = most = 0

    def __init__(self, tensor):
        self.tensor = tensor
        Saved.now += 1
        Saved.most = max(Saved.most, Saved.now)

    def __del__(self):
        Saved.now -= 1


@pytest.mark.parametrize("method", [PiGDM(), MMPS(2), DPS(0.5)], ids=["pigdm", "mmps", "dps"])
def test_holds_the_graph_of_one_step_alone(method, monkeypatch):
    y, most = Average(2)(torch.zeros(1, *SHAPE))[0], []
    for steps in (2, 20):
        monkeypatch.setattr(Saved, "most", 0)
        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            restored(method, ancestral(steps), Average(2), y, noise=0.1, number=2)
        most.append(Saved.most)
    assert most[0] == most[1] > 0
    assert Saved.now == 0


def test_descends_by_the_gradient_of_the_distance():
    """Of DPS' algorithm, for a schedule whose samples keep their scale and one whose do not."""
    x_t, y = torch.randn(2, *SHAPE, dtype=torch.float64), torch.randn(2, 1, 1, 1, dtype=torch.float64)
    for schedule, t, s in ((Linear(), 500.0, 480.0), (VE(), 0.6, 0.5)):
        t, s = (torch.tensor(time, dtype=torch.float64) for time in (t, s))
        denoise = CorrelatedGaussian(schedule)
        steered, walk = DPS(0.7)(denoise, Measurement(y, Average(2), 0, SHAPE, lambda z: z), torch.stack([t, s]), None)
        steered(x_t, t)
        at = x_t.clone().requires_grad_(True)
        distances = [(y[row] - denoise(at[row : row + 1], t).x.mean()).abs().sum() for row in range(2)]
        (gradient,) = torch.autograd.grad(sum(distances), at)
        scale = 1.0
        for level in (schedule(t), schedule(s)):
            scale *= float(torch.hypot(level.alpha, level.sigma))
        torch.testing.assert_close(walk.after(x_t, t, s), x_t - 0.7 * scale * gradient, atol=1e-10, rtol=0)


def test_one_step_equals_that_of_diffusers(monkeypatch):
    from diffusers import RePaintScheduler

    theirs = RePaintScheduler(beta_schedule="linear", eta=0.6, clip_sample=False)
    theirs.set_timesteps(50, jump_length=10, jump_n_sample=10)
    index = theirs.timesteps.tolist().index(600)
    denoise, operator = CorrelatedGaussian(Linear()), HALF
    x, x_t, noise = (torch.randn(3, *SHAPE) for _ in range(3))
    known = operator(torch.ones(1, *SHAPE))
    monkeypatch.setattr("diffusers.schedulers.scheduling_repaint.randn_tensor", lambda *_, **options: noise)
    # Their time 600 is ours of 601 steps; they step to 580, ours 581, with one noise for both parts.
    t, s = (torch.tensor(time, dtype=torch.float64) for time in (601.0, 581.0))
    eps = denoise(x_t, t).eps
    expected = theirs.step(eps, int(theirs.timesteps[index]), x_t, x, known, None).prev_sample
    measurement = Measurement(operator(x), operator, 0, SHAPE, lambda z: z)
    _, walk = RePaint()(denoise, measurement, torch.stack([t, s]), Given(noise))
    sampler = ddim(2, 0.6)
    made, _ = sampler.step(Predictor(denoise, torch.stack([t, s])), x_t, t, s, None, Given(noise))
    torch.testing.assert_close(walk.after(made, t, s), expected, atol=1e-5, rtol=0)


def test_visits_the_times_that_the_source_does():
    from diffusers import RePaintScheduler

    theirs = RePaintScheduler()
    theirs.set_timesteps(50, jump_length=7, jump_n_sample=4)
    every = [time + 20 for time in theirs.timesteps.tolist()]  # theirs go back step by step, ours at once
    expected = [b for a, b, c in zip([1020, *every[:-1]], every, [*every[1:], 0], strict=True) if not a < b < c]
    visited = RePaint(7, 4).visited(torch.arange(1000, -1, -20, dtype=torch.float64))
    assert visited.tolist() == [*expected, 0]


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_moment_matching_equals_azula(noise):
    azula = pytest.importorskip("azula.guidance")
    from azula.denoise import DiracPosterior

    denoise, t = CorrelatedGaussian(Linear()), torch.tensor(400.0, dtype=torch.float64)
    x_t, y = torch.randn(3, *SHAPE, dtype=torch.float64), torch.randn(3, 1, 1, 1, dtype=torch.float64)

    class Theirs(torch.nn.Module):
        schedule = staticmethod(lambda t: denoise.schedule(t))

        def forward(self, x_t, t):
            return DiracPosterior(mean=denoise(x_t, t).x)

    operator = Average(2)
    theirs = azula.MMPSDenoiser(Theirs(), y, operator, lambda v: noise**2 * v, "cg", iterations=1)
    expected = theirs(x_t, t).mean
    steered, _ = MMPS(1)(denoise, Measurement(y, operator, noise, SHAPE, lambda z: z), torch.stack([t, t]), None)
    torch.testing.assert_close(steered(x_t, t).x, expected, atol=1e-8, rtol=0)
