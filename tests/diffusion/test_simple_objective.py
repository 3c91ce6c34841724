import pytest
import torch
from diffusers import DDPMScheduler
from diffusion_helpers import TinyNetwork, times
from torch import nn

from langevin.diffusion import parameterization as says
from langevin.diffusion import weighting as weigh
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.objective import L1, Huber, Simple
from langevin.diffusion.parameterization import Eps, PosteriorMean, V, X
from langevin.diffusion.process import GaussianProcess, Prediction
from langevin.diffusion.schedules import edm, flow
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.time_sampler import UniformTimes
from langevin.diffusion.variance import FixedSmall
from langevin.diffusion.weighting import MinSNR, UnitEps, UnitFlow, UnitV, UnitX, VLBWeighting, Weighting

T_OF_BATCH = times(1.0, 20.0, 400.0, 999.0, 1000.0)
# Times from next to the data to next to pure noise.
SCHEDULES = {
    "linear": (Linear(), T_OF_BATCH),
    "flow": (flow.FlowSchedule(), times(0.01, 0.2, 0.5, 0.8, 0.999)),
    "edm": (edm.EDMSchedule(), times(0.002, 0.1, 0.5, 3.0, 80.0)),
}
ALWAYS = [V(), says.FlowParameterization()]
WITH_SIGNAL_LEFT = [Eps(), says.Score(), says.EDMParameterization(0.4)]
PARAMETERIZATIONS = {
    "linear": [*ALWAYS, *WITH_SIGNAL_LEFT, PosteriorMean(), PosteriorMean(relative=True)],
    "flow": ALWAYS,
    "edm": [*ALWAYS, *WITH_SIGNAL_LEFT],
}
OBJECTIVES = {"l2": Simple, "l1": L1, "huber": Huber}


class Otherwise(nn.Module):
    """A network that says of an image what an eps network says, told as a parameterization's mixture a x + b eps."""

    def __init__(self, parameterization, schedule, t) -> None:
        super().__init__()
        self.inner, self.parameterization, self.schedule, self.t = TinyNetwork(), parameterization, schedule, t

    def forward(self, x, c_noise, cond=None):
        level, mix = self.schedule(self.t), self.parameterization.mix(self.schedule, self.t)
        scale = self.parameterization.c_in(level).reshape(-1, 1, 1, 1)
        alpha, sigma, a, b = (value.reshape(-1, 1, 1, 1) for value in (*level, *mix))
        x_t = x / scale
        eps = self.inner(torch.tanh(x_t), torch.log(self.t))
        return a * (x_t - sigma * eps) / alpha + b * eps


def images(dtype=torch.float64):
    x = torch.rand(5, 2, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return (2 * x - 1).to(dtype)


def noise(seed=0):
    torch.manual_seed(seed)
    return torch.randn_like(images())


def terms(denoiser, x=None, objective=None, t=T_OF_BATCH, seed=0):
    x = images() if x is None else x
    torch.manual_seed(seed)
    return (objective or Simple(UniformTimes(), UnitEps())).terms(
        denoiser, x, denoiser.process.mix(x, torch.randn_like(x), t), None, t
    )


def denoiser(network=None, parameterization=None, schedule=None):
    return Denoiser(
        network or TinyNetwork(), GaussianProcess(schedule or Linear(), parameterization or Eps(), FixedSmall())
    )


def ddpm_error(network=None):
    """eps - eps_theta as DDPM writes it, with the noise of `terms`."""
    x, eps = images(), noise()
    bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[T_OF_BATCH.long() - 1]
    x_t = bar.sqrt().reshape(-1, 1, 1, 1) * x + (1 - bar).sqrt().reshape(-1, 1, 1, 1) * eps
    return eps - (network or TinyNetwork())(x_t, T_OF_BATCH - 1)


def test_is_the_mean_squared_error_of_the_noise():
    found, error = terms(denoiser()), ddpm_error()
    torch.testing.assert_close(found["loss"], error.square().mean((1, 2, 3)), rtol=1e-11, atol=0)
    torch.testing.assert_close(found["mse"], error.square().mean((1, 2, 3)), rtol=1e-11, atol=0)


def test_l1_is_torchs():
    error = ddpm_error()
    theirs = nn.functional.l1_loss(error, torch.zeros_like(error), reduction="none").mean((1, 2, 3))
    torch.testing.assert_close(
        terms(denoiser(), objective=L1(UniformTimes(), UnitEps()))["loss"], theirs, rtol=1e-11, atol=0
    )


@pytest.mark.parametrize("delta", [0.01, 0.3, 100.0])
def test_huber_is_twice_torchs(delta):
    """So that it is the squared error where that is below delta."""
    error = ddpm_error()
    theirs = 2 * nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)
    found = terms(denoiser(), objective=Huber(UniformTimes(), UnitEps(), delta))["loss"]
    torch.testing.assert_close(found, theirs.mean((1, 2, 3)), rtol=1e-11, atol=0)
    squared = torch.allclose(found, terms(denoiser())["loss"])
    assert squared == (delta == 100.0)


def test_equals_diffusers_training_step():
    x = images(torch.float32)
    torch.manual_seed(5)
    eps = torch.randn_like(x)
    noisy = DDPMScheduler(beta_schedule="linear").add_noise(x, eps, T_OF_BATCH.long() - 1)
    theirs = nn.functional.mse_loss(TinyNetwork()(noisy, T_OF_BATCH.float() - 1), eps, reduction="none").mean((1, 2, 3))
    torch.testing.assert_close(terms(denoiser(), x, seed=5)["loss"], theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.parametrize("weighting", [UnitEps(), UnitX(), MinSNR(), VLBWeighting()], ids=lambda w: type(w).__name__)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_parameterization_does_not_change_the_loss(name, weighting, kind):
    schedule, t = SCHEDULES[name]
    objective = OBJECTIVES[kind](UniformTimes(), weighting)
    as_x = terms(denoiser(Otherwise(X(), schedule, t), X(), schedule), objective=objective, t=t)["loss"]
    assert (as_x > 0).all()
    for parameterization in PARAMETERIZATIONS[name]:
        predicted = denoiser(Otherwise(parameterization, schedule, t), parameterization, schedule)
        found = terms(predicted, objective=objective, t=t)["loss"]
        torch.testing.assert_close(found, as_x, rtol=1e-6, atol=0, msg=lambda text, p=parameterization: f"{p} {text}")


class Watching(Denoiser):
    """Keeps its outputs."""

    def forward(self, x_t, t, cond=None) -> Prediction:
        self.x_t, self.prediction = x_t, super().forward(x_t, t, cond)
        return self.prediction


@pytest.mark.parametrize(
    ("weighting", "error"),
    [
        (UnitX(), lambda level, x, eps: x),
        (UnitEps(), lambda level, x, eps: eps),
        (UnitV(), lambda level, x, eps: level.alpha.reshape(-1, 1, 1, 1) * eps - level.sigma.reshape(-1, 1, 1, 1) * x),
        (UnitFlow(), lambda level, x, eps: eps - x),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Weighting) else "",
)
def test_a_unit_weighting_is_the_squared_error_of_what_it_names(weighting, error):
    """For any network, here one that predicts v, so that x and eps are both computed."""
    model = Watching(TinyNetwork(), GaussianProcess(Linear(), V()))
    found = terms(model, objective=Simple(UniformTimes(), weighting))
    gap = error(Linear()(T_OF_BATCH), model.prediction.x - images(), model.prediction.eps - noise())
    torch.testing.assert_close(found["loss"], gap.square().mean((1, 2, 3)), rtol=1e-8, atol=0)


def test_edms_is_its_own_loss():
    """EDM's equation 8, lambda(sigma) |D - y|^2, with the preconditioned network of its equation 7."""
    schedule, t = SCHEDULES["edm"]
    x, network, sigma, data = images(), TinyNetwork(), t.reshape(-1, 1, 1, 1), 0.4
    found = terms(
        denoiser(network, says.EDMParameterization(data), schedule),
        objective=Simple(UniformTimes(), weigh.EDMWeighting(data)),
        t=t,
    )
    x_t = x + sigma * noise()
    norm = (sigma**2 + data**2).sqrt()
    predicted = network(x_t / norm, torch.log(t) / 4)
    error = data**2 / norm**2 * x_t + sigma * data / norm * predicted - x
    expected = ((sigma**2 + data**2) / (sigma * data) ** 2 * error**2).mean((1, 2, 3))
    torch.testing.assert_close(found["loss"], expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(found["loss"], found["mse"], rtol=1e-9, atol=0)


def test_on_a_schedule_that_keeps_no_variance():
    t = times(0.1, 0.3, 0.5, 0.7, 1.0)
    x, network = images(), TinyNetwork()
    found = terms(
        denoiser(network, says.FlowParameterization(), flow.FlowSchedule()),
        objective=Simple(UniformTimes(), UnitX()),
        t=t,
    )
    eps, wide = noise(), t.reshape(-1, 1, 1, 1)
    x_t = (1 - wide) * x + wide * eps
    output = network(x_t / ((1 - wide) ** 2 + wide**2).sqrt(), 1000 * t)
    mse = (output - (eps - x)).square().mean((1, 2, 3))
    torch.testing.assert_close(found["mse"], mse, rtol=1e-12, atol=0)
    torch.testing.assert_close(found["loss"], t**2 * mse, rtol=1e-12, atol=0)  # x = x_t - t v


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_gives_one_number_a_image_of_the_images_type(kind):
    for term in terms(
        denoiser(), x=images(torch.float32), objective=OBJECTIVES[kind](UniformTimes(), MinSNR())
    ).values():
        assert (term.shape, term.dtype) == ((5,), torch.float32)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_gradient_flows_through_the_loss_alone(kind):
    objective = OBJECTIVES[kind](UniformTimes(), MinSNR())
    model = denoiser()
    found = terms(model, objective=objective)
    assert not found["mse"].requires_grad
    found["loss"].sum().backward()
    weight = model.network.weight
    # Against a central difference along a random direction.
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    slopes = []
    for sign in (1, -1):
        moved = denoiser()
        moved.network.weight.data += sign * 1e-6 * direction
        slopes.append(terms(moved, objective=objective)["loss"].sum().item())
    assert (weight.grad * direction).sum().item() == pytest.approx((slopes[0] - slopes[1]) / 2e-6, rel=1e-5)


def test_variance_channels_do_not_touch_the_loss():
    class Wider(TinyNetwork):
        def forward(self, x, c_noise, cond=None):
            output = super().forward(x, c_noise, cond)
            return torch.cat([output, 1e6 * output], 1)

    assert torch.equal(terms(denoiser(Wider()))["loss"], terms(denoiser())["loss"])
