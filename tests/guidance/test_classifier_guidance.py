"""On a mixture of Gaussians each of which is a class: there the classifier is Bayes' rule, and guidance by it exact."""

import pytest
import torch
from helpers.draws import Given
from helpers.exact import Mixture, gaussian
from torch import nn

from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess, Prediction
from langevin.diffusion.rescalings.zero_terminal_snr import ZeroTerminalSNR
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.vp import VP
from langevin.diffusion.variance import FixedLarge, FixedSmall
from langevin.errors import UserError
from langevin.guidance.classifier import ClassifierGuidance
from langevin.guidance.guidance import Guided
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.ddim import DDIM
from langevin.samplers.timestep_spacing import Trailing
from langevin.spec import DataSpec

MEANS, STDS, WEIGHTS = (-0.6, 0.5), (0.2, 0.3), (0.4, 0.6)
SPEC = DataSpec.of_images(channels=1, image_size=1, num_classes=2)
LABELS = torch.tensor([0, 1, 0, 1, 0, 1])
COND = {"label": LABELS}
X_T = torch.tensor([-1.5, -0.9, -0.1, 0.3, 0.4, 2.0], dtype=torch.float64).reshape(-1, 1, 1, 1)


class Bayes(nn.Module):
    """log p(y | x_t) of the mixture's components."""

    def __init__(self, schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t, t):
        alpha, sigma = (coefficient.reshape(-1, 1) for coefficient in self.schedule(t))
        means, stds, weights = (torch.tensor(v, dtype=torch.float64) for v in (MEANS, STDS, WEIGHTS))
        total = alpha**2 * stds**2 + sigma**2
        gap = x_t.reshape(-1, 1) - alpha * means
        return torch.log_softmax(torch.log(weights) - gap**2 / (2 * total) - torch.log(total) / 2, -1)


def by(schedule, scale=1.0, form="score", spec=SPEC):
    return ClassifierGuidance(lambda option, value: (Bayes(schedule), spec), "runs/classifier", scale, form)


def guided(schedule, scale=1.0, form="score", variance=None):
    return Guided(Mixture(schedule, MEANS, STDS, WEIGHTS, variance), by(schedule, scale, form))


@pytest.mark.parametrize(
    ("schedule", "t"),
    [(Linear(), 3), (Linear(), 400), (VP(), 0.3), (EDMSchedule(), 0.4), (EDMSchedule(), 30), (FlowSchedule(), 0.7)],
    ids=lambda value: type(value).__name__ if not isinstance(value, int | float) else str(value),
)
@pytest.mark.parametrize("each", [False, True], ids=["one time", "a time per image"])
def test_at_scale_one_an_unconditional_model_becomes_the_conditional_one(schedule, t, each):
    t = torch.full((len(X_T),) if each else (), float(t), dtype=torch.float64)
    prediction = guided(schedule)(X_T, t, COND)
    for label, (mean, std) in enumerate(zip(MEANS, STDS, strict=True)):
        mine = label == LABELS
        exact = gaussian(schedule, mean, std)(X_T[mine], t[mine] if each else t)
        torch.testing.assert_close(prediction.x[mine], exact.x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(prediction.eps[mine], exact.eps, rtol=1e-9, atol=1e-9)


def test_samples_are_those_of_the_class():
    noise = torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(4000) % 2
    made = DDIM(Trailing(), steps=250)(guided(Linear()), Given(noise), {"label": labels}).flatten()
    for label, (mean, std) in enumerate(zip(MEANS, STDS, strict=True)):
        assert float(made[labels == label].mean()) == pytest.approx(mean, abs=0.02)
        assert float(made[labels == label].std()) == pytest.approx(std, rel=0.05)


def test_a_greater_scale_leads_further_from_the_other_class():
    noise = torch.randn(500, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.ones(500, dtype=torch.long)
    made = [DDIM(Trailing(), steps=50)(guided(Linear(), s), Given(noise), {"label": labels}) for s in (0, 1, 4)]
    sure = [float(Bayes(Linear())(x, torch.tensor(1.0, dtype=torch.float64))[:, 1].exp().mean()) for x in made]
    assert sure[0] < sure[1] < sure[2]
    assert made[0].std() > made[1].std() > made[2].std()


@pytest.mark.parametrize("form", ["score", "mean"])
def test_scale_zero_is_the_model_itself_and_asks_no_classifier(form):
    t = torch.tensor(500.0, dtype=torch.float64)
    guidance = ClassifierGuidance(lambda option, value: (nn.Identity(), SPEC), "runs/classifier", 0.0, form)
    plain, steered = (model(X_T, t, COND) for model in (Mixture(Linear()), Guided(Mixture(Linear()), guidance)))
    assert torch.equal(plain.x, steered.x)
    assert torch.equal(plain.eps, steered.eps)
    assert steered.mean_gradient is None


@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge()])
@pytest.mark.parametrize("s", [0.0, 300.0])
def test_the_mean_form_moves_the_mean_of_a_step(variance, s):
    """By its variance times the gradient, here taken by differences: ADM's algorithm 1."""
    schedule, s, t = Linear(), torch.tensor(s, dtype=torch.float64), torch.tensor(s + 100, dtype=torch.float64)
    quiet = torch.zeros_like(X_T)

    def mean(model):
        class Two(Trailing):
            def __call__(self, schedule, steps):
                return torch.stack([t, s])

        # The walk divides by alpha at time 0 at its end, and multiplies the noise it begins with by nothing.
        noise = iter([X_T, quiet, quiet])
        return Ancestral(Two(), None, 1)(model, Given(lambda: next(noise)), COND) * schedule(0 * s).alpha

    moved = mean(guided(schedule, 3.0, "mean", variance)) - mean(Mixture(schedule, MEANS, STDS, WEIGHTS, variance))
    up, down = (Bayes(schedule)(X_T + h, t).gather(1, LABELS[:, None]).flatten() for h in (1e-5, -1e-5))
    gradient = ((up - down) / 2e-5).reshape(X_T.shape)
    expected = 3 * torch.exp(variance.log_variance(None, schedule, s, t)) * gradient
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-9)


def test_the_gradient_is_there_in_inference_mode_and_leaves_no_graph():
    t = torch.tensor(400.0, dtype=torch.float64)
    expected = guided(Linear(), 2.0)(X_T, t, COND).x
    with torch.inference_mode():
        steered = guided(Linear(), 2.0)(X_T.clone(), t, {"label": LABELS.clone()}).x
    assert not steered.requires_grad
    assert torch.equal(steered, expected)


class Told(nn.Module):
    """A model that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.process = GaussianProcess(Linear(), Eps())
        self.schedule = self.process.schedule

    def __call__(self, x_t, t, cond=None):
        self.cond = cond
        return Prediction(x_t, x_t, x_t, None)


def test_the_model_is_given_the_labels_too():
    model = Told()
    Guided(model, by(Linear()))(X_T, torch.tensor(5.0, dtype=torch.float64), COND)
    assert model.cond is COND


@pytest.mark.parametrize(
    ("schedule", "spec", "conditional", "words"),
    [
        (Linear(500), SPEC, False, "it was trained on another noise process than the model"),
        (Linear(beta_end=0.021), SPEC, False, "another noise process"),
        (VP(), SPEC, False, "another noise process"),
        (Linear(), DataSpec.of_images(1, 1, 3), True, "allowed: one for the model's 3 classes; it has 2"),
        (
            Linear(),
            DataSpec.of_images(1, 2, 2),
            False,
            r"\(1, 2, 2\), as the model's are; it is for \(1, 1, 1\)",
        ),
    ],
)
def test_a_classifier_that_does_not_suit(schedule, spec, conditional, words):
    with pytest.raises(UserError, match=f"classifier is runs/classifier.*{words}"):
        by(Linear()).check(schedule, spec, conditional)


def test_a_classifier_that_suits():
    by(Linear()).check(Linear(), SPEC, conditional=True)
    by(Linear()).check(Linear(), DataSpec.of_images(1, 1, 7), conditional=False)
    by(Linear()).check(None, None, conditional=True)
    by(Linear()).check(Linear(), None, conditional=True)


def test_without_any_signal_in_the_end_there_is_no_score_to_move():
    schedule = ZeroTerminalSNR(Linear())
    with pytest.raises(UserError, match="form is score; allowed: mean"):
        by(schedule).check(schedule, SPEC, conditional=False)
    by(schedule, form="mean").check(schedule, SPEC, conditional=False)


def test_labels_are_needed():
    with pytest.raises(UserError, match="needs labels to guide towards"):
        guided(Linear())(X_T, torch.tensor(5.0, dtype=torch.float64))
