import pytest
import torch
from helpers.draws import Given
from torch import nn

from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess, Prediction
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.variance import FixedSmall
from langevin.errors import UserError
from langevin.guidance.classifier_free import ClassifierFree
from langevin.guidance.guidance import Guided
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.ddim import DDIM
from langevin.samplers.thresholding import Static
from langevin.samplers.timestep_spacing import Leading


class Labelled(nn.Module):
    """A random function of the image, the time and the label (-1: none); keeps the sizes of its batches."""

    def __init__(self, extra: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(2 + extra, 2, 3, 3, generator=generator).double() / 3
        self.batches = []

    def forward(self, x, c_noise, cond=None):
        self.batches.append(len(x))
        label = torch.full((len(x),), -1) if cond is None else cond["label"]
        conditioning = torch.sin(c_noise / 150) + torch.cos(1.7 * label.double())
        return torch.tanh(nn.functional.conv2d(x, self.weight, padding=1) + conditioning.reshape(-1, 1, 1, 1))

    def null_condition(self, cond):
        return {**cond, "label": torch.full_like(cond["label"], -1)}


@pytest.fixture
def model():
    return Denoiser(Labelled(), GaussianProcess(Linear(), Eps(), FixedSmall()))


def guided_by(model, *scale, **others):
    return Guided(model, ClassifierFree(*scale, **others))


X_T = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
COND = {"label": torch.tensor([4, 0, 7])}
TIMES = [torch.tensor(300.0, dtype=torch.float64), torch.tensor([1.0, 500.0, 1000.0], dtype=torch.float64)]


def assert_close(ours: Prediction, x, eps, raw):
    for a, b in ((ours.x, x), (ours.eps, eps), (ours.raw, raw)):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("t", TIMES, ids=["one time", "a time per image"])
@pytest.mark.parametrize("scale", [0.3, 0.5, 1.5, 4.0, 20.0])
def test_extrapolates_from_unconditional_to_conditional(model, t, scale):
    c, u = model(X_T, t, COND), model(X_T, t, None)
    expected = [b + scale * (a - b) for a, b in ((c.x, u.x), (c.eps, u.eps), (c.raw, u.raw))]
    assert (expected[1] - c.eps).abs().max() > 0.1
    assert_close(guided_by(model, scale)(X_T, t, COND), *expected)


@pytest.mark.parametrize("t", TIMES, ids=["one time", "a time per image"])
def test_scale_one_is_the_model_itself(model, t):
    plain, guided = model(X_T, t, COND), guided_by(model, 1.0)(X_T, t, COND)
    assert torch.equal(guided.x, plain.x)
    assert torch.equal(guided.eps, plain.eps)
    assert model.network.batches == [3, 3]  # no second half to pay for


@pytest.mark.parametrize("t", TIMES, ids=["one time", "a time per image"])
def test_scale_zero_is_unconditional(model, t):
    u = model(X_T, t, None)
    assert_close(guided_by(model, 0.0)(X_T, t, COND), u.x, u.eps, u.raw)


def test_both_predictions_are_one_call(model):
    guided_by(model, 3.0)(X_T, TIMES[0], COND)
    assert model.network.batches == [6]


def test_further_parts_of_the_condition_travel_along():
    class Hinted(Labelled):
        def forward(self, x, c_noise, cond=None):
            return super().forward(x, c_noise, cond) + cond["hint"]

    model = Denoiser(Hinted(), GaussianProcess(Linear(), Eps(), FixedSmall()))
    cond = {**COND, "hint": torch.randn(X_T.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)}
    c, u = model(X_T, TIMES[1], cond), model(X_T, TIMES[1], {**cond, "label": torch.full((3,), -1)})
    guided = guided_by(model, 2.0)(X_T, TIMES[1], cond)
    torch.testing.assert_close(guided.eps, 2 * c.eps - u.eps, rtol=0, atol=1e-12)


def test_guided_prediction_still_explains_the_noisy_image(model):
    t = TIMES[1]
    guided = guided_by(model, 5.0)(X_T, t, COND)
    alpha, sigma = (value.reshape(-1, 1, 1, 1) for value in model.schedule(t))
    torch.testing.assert_close(alpha * guided.x + sigma * guided.eps, X_T, rtol=0, atol=1e-11)


def test_learned_variance_is_the_conditional_one():
    model = Denoiser(Labelled(extra=2), GaussianProcess(Linear(), Eps(), FixedSmall()))
    guided = guided_by(model, 3.0)(X_T, TIMES[0], COND)
    torch.testing.assert_close(guided.variance, model(X_T, TIMES[0], COND).variance, rtol=0, atol=1e-13)


def test_no_variance_stays_none(model):
    assert guided_by(model, 3.0)(X_T, TIMES[0], COND).variance is None


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_without_a_condition_is_refused(model, scale):
    with pytest.raises(UserError, match="condition"):
        guided_by(model, scale)(X_T, TIMES[0])


def test_an_interval_guides_within_and_not_without(model):
    ratio = model.schedule(TIMES[1]).ratio
    guided = guided_by(model, 3.0, sigma_min=float(ratio[0]), sigma_max=float(ratio[1]))(X_T, TIMES[1], COND)
    plain, everywhere = model(X_T, TIMES[1], COND), guided_by(model, 3.0)(X_T, TIMES[1], COND)
    for index, expected in enumerate((plain, everywhere, plain)):
        torch.testing.assert_close(guided.eps[index], expected.eps[index], rtol=0, atol=1e-12)
    assert (plain.eps - everywhere.eps).abs().flatten(1).amax(1).min() > 0.1


def test_outside_the_interval_nothing_more_is_paid(model):
    guided_by(model, 3.0, sigma_max=1e-3)(X_T, TIMES[0], COND)
    assert model.network.batches == [3]


def test_an_empty_interval_is_refused(model):
    with pytest.raises(UserError, match=r"sigma_max is 1.0; allowed: above sigma_min \(2.0\)"):
        guided_by(model, 2.0, sigma_min=2.0, sigma_max=1.0)


@pytest.mark.parametrize("phi", [0.3, 0.7, 1.0])
def test_rescaling_is_lins(model, phi):
    c, u = model(X_T, TIMES[0], COND), model(X_T, TIMES[0], None)
    guided = u.raw + 7 * (c.raw - u.raw)
    matched = torch.stack(
        [g * one.numpy().std(ddof=1) / g.numpy().std(ddof=1) for g, one in zip(guided, c.raw, strict=True)]
    )
    expected = phi * matched + (1 - phi) * guided  # equations 15 and 16
    guided = guided_by(model, 7.0, rescale=phi)(X_T, TIMES[0], COND)
    torch.testing.assert_close(guided.raw, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(guided.eps, expected, rtol=1e-12, atol=1e-12)
    if phi == 1:
        torch.testing.assert_close(guided.raw.flatten(1).std(1), c.raw.flatten(1).std(1))


class ByHand:
    """The same guidance in two calls, of eps alone."""

    def __init__(self, model, scale) -> None:
        self.model, self.scale = model, scale
        self.schedule, self.process = model.schedule, model.process

    def __call__(self, x_t, t, cond=None):
        c, u = self.model(x_t, t, cond).eps, self.model(x_t, t, None).eps
        eps = (1 - self.scale) * u + self.scale * c
        alpha, sigma = (float(v) for v in self.schedule(t))
        return Prediction((x_t - sigma * eps) / alpha, eps, eps, None)


@pytest.mark.parametrize(
    "sampler", [DDIM(Leading(), Static(), 10), Ancestral(Leading(), Static(), 10), DDIM(Leading(), None, 5)]
)
def test_steers_a_sampler(model, sampler):
    def noise():
        generator = torch.Generator().manual_seed(0)
        return Given(lambda: torch.randn(X_T.shape, generator=generator, dtype=torch.float64))

    guided = sampler(guided_by(model, 3.0), noise(), COND)
    torch.testing.assert_close(guided, sampler(ByHand(model, 3.0), noise(), COND), rtol=1e-9, atol=1e-9)
    assert (guided - sampler(model, noise(), COND)).abs().max() > 0.01
