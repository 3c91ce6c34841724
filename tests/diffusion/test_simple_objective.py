import pytest
import torch
from diffusers import DDPMScheduler
from diffusion_helpers import Flow, TinyNetwork, V, Velocity, X, times
from torch import nn

from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.level import Level
from langevin.diffusion.objective import Simple
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.time_sampler import TimeSampler, Uniform
from langevin.diffusion.variance import FixedSmall
from langevin.diffusion.weighting import UnitEps, Weighting

T_OF_BATCH = times(1.0, 20.0, 400.0, 999.0, 1000.0)


class Given(TimeSampler):
    def __init__(self, t=T_OF_BATCH, importance=None) -> None:
        self.t, self.importance = t, torch.ones_like(t) if importance is None else importance

    def sample(self, n, schedule):
        assert n == len(self.t)
        return self.t, self.importance


class UnitX(Weighting):
    def __call__(self, level):
        return torch.ones_like(level.alpha)


class Otherwise(nn.Module):
    """An eps network whose output is told as another mixture a x + b eps."""

    def __init__(self, network, parameterization, schedule) -> None:
        super().__init__()
        self.network, self.parameterization, self.schedule = network, parameterization, schedule

    def forward(self, x_t, c_noise, cond=None):
        eps = self.network(x_t, c_noise, cond)
        t = c_noise.double() * self.schedule.num_steps / 1000 + 1
        level, mix = self.schedule(t), self.parameterization.mix(self.schedule, t)
        alpha, sigma, a, b = (value.reshape(-1, 1, 1, 1) for value in (*level, *mix))
        return a * (x_t - sigma * eps) / alpha + b * eps


def pictures(dtype=torch.float64):
    x = torch.rand(5, 2, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return (2 * x - 1).to(dtype)


def loss(denoiser, x=None, weighting=None, time_sampler=None, seed=0):
    torch.manual_seed(seed)
    return Simple(weighting or UnitEps(), time_sampler or Given())(denoiser, pictures() if x is None else x, None)


def denoiser(network=None, parameterization=None, schedule=None):
    return Denoiser(network or TinyNetwork(), schedule or Linear(), parameterization or Eps(), FixedSmall())


def test_is_the_mean_squared_error_of_the_noise():
    terms = loss(denoiser())
    torch.manual_seed(0)
    x, network = pictures(), TinyNetwork()
    eps = torch.randn_like(x)
    bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[T_OF_BATCH.long() - 1]
    x_t = bar.sqrt().reshape(-1, 1, 1, 1) * x + (1 - bar).sqrt().reshape(-1, 1, 1, 1) * eps
    error = eps - network(x_t, T_OF_BATCH - 1)
    torch.testing.assert_close(terms["loss"], error.square().mean((1, 2, 3)), rtol=1e-11, atol=0)
    torch.testing.assert_close(terms["mse"], error.square().mean((1, 2, 3)), rtol=1e-11, atol=0)


def test_with_drawn_times_equals_diffusers_training_step():
    x = pictures(torch.float32)
    torch.manual_seed(5)
    ours = Simple(UnitEps(), Uniform())(denoiser(), x, None)["loss"]
    torch.manual_seed(5)
    index = torch.randint(0, 1000, (5,))  # the same draw, on diffusers' clock
    eps = torch.randn_like(x)
    noisy = DDPMScheduler(beta_schedule="linear").add_noise(x, eps, index)
    theirs = nn.functional.mse_loss(TinyNetwork()(noisy, index.float()), eps, reduction="none").mean((1, 2, 3))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("parameterization", [V(), X(), Velocity()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("weighting", [UnitEps(), UnitX()], ids=lambda w: type(w).__name__)
def test_value_does_not_depend_on_the_parameterization(parameterization, weighting):
    schedule = Linear()
    as_eps = loss(denoiser(), weighting=weighting)["loss"]
    network = Otherwise(TinyNetwork(), parameterization, schedule)
    other = loss(denoiser(network, parameterization), weighting=weighting)["loss"]
    torch.testing.assert_close(other, as_eps, rtol=1e-10, atol=0)


def test_unit_x_weighting_is_the_mean_squared_error_of_the_picture():
    seen = {}

    class Watching(Denoiser):
        def forward(self, x_t, t, cond=None):
            seen["prediction"] = super().forward(x_t, t, cond)
            return seen["prediction"]

    model = Watching(TinyNetwork(), Linear(), Eps(), FixedSmall())
    terms = loss(model, weighting=UnitX())
    error = (seen["prediction"].x - pictures()).square().mean((1, 2, 3))
    torch.testing.assert_close(terms["loss"], error, rtol=1e-10, atol=0)
    assert not torch.allclose(terms["mse"], terms["loss"])


def test_on_a_schedule_that_keeps_no_variance():
    schedule, t = Flow(), times(0.1, 0.3, 0.5, 0.7, 1.0)
    x, network = pictures(), TinyNetwork()
    terms = loss(denoiser(network, Velocity(), schedule), weighting=UnitX(), time_sampler=Given(t))
    torch.manual_seed(0)
    eps = torch.randn_like(x)
    wide = t.reshape(-1, 1, 1, 1)
    x_t = (1 - wide) * x + wide * eps
    output = network(x_t / ((1 - wide) ** 2 + wide**2).sqrt(), 1000 * t)
    mse = (output - (eps - x)).square().mean((1, 2, 3))
    torch.testing.assert_close(terms["mse"], mse, rtol=1e-12, atol=0)
    torch.testing.assert_close(terms["loss"], t**2 * mse, rtol=1e-12, atol=0)  # x = x_t - t v


def test_importance_multiplies():
    importance = times(1.0, 2.0, 0.5, 0.0, 10.0)
    plain = loss(denoiser())
    weighed = loss(denoiser(), time_sampler=Given(importance=importance))
    torch.testing.assert_close(weighed["loss"], importance * plain["loss"], rtol=1e-14, atol=0)
    assert torch.equal(weighed["mse"], plain["mse"])


def test_gives_one_number_a_picture_of_the_pictures_type():
    terms = loss(denoiser(), x=pictures(torch.float32))
    for term in terms.values():
        assert (term.shape, term.dtype) == ((5,), torch.float32)


def test_gradient_flows_through_the_loss_alone():
    model = denoiser()
    terms = loss(model)
    assert not terms["mse"].requires_grad
    terms["loss"].sum().backward()
    weight = model.network.weight
    # Against a central difference along a random direction.
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    slopes = []
    for sign in (1, -1):
        moved = denoiser()
        moved.network.weight.data += sign * 1e-6 * direction
        slopes.append(loss(moved)["loss"].sum().item())
    assert (weight.grad * direction).sum().item() == pytest.approx((slopes[0] - slopes[1]) / 2e-6, rel=1e-6)


def test_variance_channels_do_not_touch_the_loss():
    class Wider(TinyNetwork):
        def forward(self, x, c_noise, cond=None):
            output = super().forward(x, c_noise, cond)
            return torch.cat([output, 1e6 * output], 1)

    assert torch.equal(loss(denoiser(Wider()))["loss"], loss(denoiser())["loss"])


def test_unit_eps_is_the_signal_to_noise_ratio():
    weight = UnitEps()(Level(times(0.8, 0.6), times(0.6, 0.8)))
    torch.testing.assert_close(weight, times(16 / 9, 9 / 16))
