"""The loss whose scale is learned: what it is with u = 0, and what u becomes."""

import pytest
import torch
from diffusion_helpers import TinyNetwork, normal, times, wide
from torch import nn

from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import BatchDraws
from langevin.diffusion.objective import Simple
from langevin.diffusion.parameterization import EDMParameterization, FlowParameterization, V
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.time_sampler import LogNormal, UniformTimes
from langevin.diffusion.uncertainty import Uncertainty
from langevin.diffusion.variance import FixedSmall
from langevin.diffusion.weighting import EDMWeighting, UnitEps, UnitFlow, UnitX
from langevin.magnitudes import force_magnitudes, mp_layers

PROCESSES = {
    "ddpm": (Linear(), V(), UnitEps(), times(1.0, 20.0, 400.0, 1000.0)),
    # No signal is left at the last time, where log(sigma / alpha) is infinite.
    "flow": (FlowSchedule(), FlowParameterization(), UnitX(), times(0.01, 0.2, 0.8, 1.0)),
    "edm": (EDMSchedule(), EDMParameterization(), EDMWeighting(), times(0.002, 0.1, 3.0, 80.0)),
}


def terms(objective, model, t):
    x = normal(len(t), 2, 4, 4, seed=1)
    return objective.terms(model, x, model.process.mix(x, normal(len(t), 2, 4, 4, seed=2), t), None, t)


@pytest.mark.parametrize("name", PROCESSES)
def test_is_the_plain_loss_where_u_is_0(name):
    """And in a validation whatever u is: to the bit."""
    schedule, parameterization, weighting, t = PROCESSES[name]
    model = Denoiser(TinyNetwork(), GaussianProcess(schedule, parameterization, FixedSmall()))
    plain = terms(Simple(UniformTimes(), weighting), model, t)
    objective = Uncertainty(UniformTimes(), weighting)
    found = terms(objective, model, t)
    u = found["uncertainty"]
    assert u.isfinite().all()
    # What is divided by its size, and what a sampler of times looks at.
    torch.testing.assert_close(found[objective.times_by], plain["loss"] / u.exp())
    assert not torch.equal(found["loss"], plain["loss"])
    torch.testing.assert_close(found["loss"], plain["loss"] * torch.exp(-u) + u, rtol=1e-12, atol=0)
    for each in (found, terms(objective.eval(), model, t)):
        assert torch.equal(each["weighted"], plain["loss"])
        assert torch.equal(each["mse"], plain["mse"])
    assert torch.equal(terms(objective, model, t)["loss"], plain["loss"])
    nn.init.zeros_(objective.linear.weight)
    assert torch.equal(terms(objective.train(), model, t)["loss"], plain["loss"])


class WrongBy(nn.Module):
    """Says of nothing but noise what EDM's network should, but for a constant that depends on the noise level."""

    def forward(self, x, c_noise, cond=None):
        sigma = wide(torch.exp(4 * c_noise.double()))
        eps = x / sigma * (sigma.square() + 0.25).sqrt()  # the input is c_in sigma eps
        b = -0.5 / (sigma.square() + 0.25).sqrt()  # F = a x + b eps, where x is 0
        return (b * eps + wide(log_loss(c_noise) / 2).exp()).to(x.dtype)


def log_loss(c_noise):
    """As EDM2's falls: little is wrong at much noise."""
    return -1.5 - 1.2 * torch.tanh(2.5 * (c_noise + 0.2))


def test_u_becomes_the_logarithm_of_the_loss():
    """Which minimises L exp(-u) + u in closed form; within 0.06, wherever training has been often."""
    torch.manual_seed(0)
    model = Denoiser(WrongBy(), GaussianProcess(EDMSchedule(), EDMParameterization(), FixedSmall()))
    objective = Uncertainty(LogNormal(), EDMWeighting())
    c_noise = torch.linspace(-1.0, 0.4, 29)  # two standard deviations about the mean
    t = torch.exp(4 * c_noise.double())
    optimizer = torch.optim.Adam(objective.parameters(), betas=(0.9, 0.99))
    layers, x = mp_layers(objective), torch.zeros(256, 1, 1, 1, dtype=torch.float64)
    assert (objective.uncertainty(EDMSchedule(), t) - log_loss(c_noise)).abs().max() > 1
    for step in range(400):
        force_magnitudes(layers)
        optimizer.param_groups[0]["lr"] = 1e-1 * (1 - step / 400)
        found = objective(model, {"x": x}, BatchDraws(step, x, len(x)))
        optimizer.zero_grad()
        found["loss"].mean().backward()
        optimizer.step()
    u = objective.uncertainty(EDMSchedule(), t)
    torch.testing.assert_close(u, log_loss(c_noise), rtol=0, atol=0.06)
    # There the loss of every level is 1 + u: each counts as one.
    torch.testing.assert_close((found["loss"] - found["uncertainty"]).mean().item(), 1.0, rtol=0, atol=0.02)


def test_its_weights_are_a_role_of_their_own():
    model = Denoiser(TinyNetwork(), GaussianProcess(FlowSchedule(), FlowParameterization(), FixedSmall()))
    objective = Uncertainty(UniformTimes(), UnitFlow(), channels=16)
    roles = {role: list(weights) for role, weights in objective.parameters_by_role(model).items()}
    assert roles == {"model": [model.network.weight], "uncertainty": [objective.linear.weight]}
