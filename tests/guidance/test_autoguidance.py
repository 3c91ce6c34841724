import pytest
import torch
from helpers.draws import Given
from helpers.exact import Mixture, gaussian

from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.level import combine
from langevin.diffusion.parameterization import Eps, V
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.variance import FixedSmall
from langevin.errors import UserError
from langevin.guidance.autoguidance import Autoguidance
from langevin.guidance.guidance import Guided
from langevin.samplers.ddim import DDIM
from langevin.samplers.timestep_spacing import Trailing
from langevin.spec import DataSpec

SPEC = DataSpec.of_images(channels=1, image_size=4, num_classes=3)
X_T = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
COND = {"label": torch.tensor([2, 0, 1])}
TIMES = [torch.tensor(300.0, dtype=torch.float64), torch.tensor([1.0, 500.0, 1000.0], dtype=torch.float64)]


class Network(torch.nn.Module):
    def __init__(self, slope) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def forward(self, x, c_noise, cond=None):
        shift = 0 if cond is None else cond["label"].reshape(-1, 1, 1, 1) / 5
        return torch.sin(self.slope * x + shift + c_noise.reshape(-1, 1, 1, 1) / 700)


def model(slope, parameterization=None):
    return Denoiser(Network(slope), GaussianProcess(Linear(), parameterization or Eps(), FixedSmall()))


def away_from(weaker, scale, spec=SPEC, conditional=True):
    return Autoguidance(lambda option, value: (weaker, spec, conditional), "runs/weaker", scale)


@pytest.mark.parametrize("t", TIMES, ids=["one time", "a time per image"])
@pytest.mark.parametrize("weaker", [model(0.5), model(0.5, V())], ids=["eps", "v"])
@pytest.mark.parametrize("scale", [0.0, 0.4, 3.0])
def test_extrapolates(t, weaker, scale):
    strong, weak = model(2.0)(X_T, t, COND), weaker(X_T, t, COND)
    guided = Guided(model(2.0), away_from(weaker, scale))(X_T, t, COND)
    x = weak.x + scale * (strong.x - weak.x)
    torch.testing.assert_close(guided.x, x, rtol=1e-10, atol=1e-10)
    alpha, sigma = Linear()(t)
    torch.testing.assert_close(combine(alpha, guided.x, sigma, guided.eps), X_T, rtol=1e-10, atol=1e-10)


def test_scale_one_is_the_model_itself_and_asks_no_other():
    strong = model(2.0)
    guided = Guided(strong, away_from(lambda *given: pytest.fail("the weaker model was asked"), 1.0))
    plain = strong(X_T, TIMES[0], COND)
    for ours, theirs in zip(guided(X_T, TIMES[0], COND)[:3], plain[:3], strict=True):
        assert torch.equal(ours, theirs)


def test_extrapolates_from_too_wide_a_distribution():
    """The model believes in N(0.3, 0.4^2), the weaker one in a wider one: the samples become narrower than either's."""
    noise = torch.randn(2000, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = []
    for scale in (0.0, 1.0, 2.0):
        guided = Guided(gaussian(Linear()), away_from(Mixture(Linear(), (0.3,), (0.6,), (1.0,)), scale))
        made = DDIM(Trailing(), steps=150)(guided, Given(noise))
        assert float(made.mean()) == pytest.approx(0.3, abs=0.05)
        spread.append(float(made.std()))
    assert spread == [pytest.approx(0.6, rel=0.05), pytest.approx(0.4, rel=0.05), pytest.approx(spread[2])]
    assert spread[2] < 0.35


@pytest.mark.parametrize(
    ("guidance", "spec", "conditional", "words"),
    [
        (away_from(Mixture(Linear(500)), 2.0), SPEC, True, "it was trained on another noise process"),
        (away_from(model(1.0), 2.0), SPEC, False, "allowed: an unconditional model, as the one it guides"),
        (
            away_from(model(1.0), 2.0),
            DataSpec.of_images(1, 4, 5),
            True,
            "allowed: one for the model's 5 classes; it has 3",
        ),
        (
            away_from(model(1.0), 2.0),
            DataSpec.of_images(3, 4, 3),
            True,
            r"\(3, 4, 4\), .*; it is for \(1, 4, 4\)",
        ),
    ],
)
def test_a_model_that_does_not_suit(guidance, spec, conditional, words):
    with pytest.raises(UserError, match=f"weaker is runs/weaker.*{words}"):
        guidance.check(Linear(), spec, conditional)


def test_models_that_suit():
    away_from(model(1.0), 2.0).check(Linear(), SPEC, conditional=True)
    away_from(model(1.0), 2.0).check(None, None, conditional=True)
    away_from(model(1.0), 2.0, conditional=False).check(Linear(), DataSpec.of_images(1, 4, None), conditional=True)
