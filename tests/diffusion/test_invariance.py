"""What the project promises: a prediction does not depend on how it is told, scaled or timed.

One denoiser D(x_t / alpha, sigma / alpha) is emulated through every parameterization and on every schedule by a network
that is shown nothing but its input and c_noise; and one network, told sigma / alpha, is put on every schedule. The
predictions and the deterministic paths of DDIM must be the same to float64's rounding.
"""

from itertools import pairwise

import pytest
import torch
from conf_parts import PLAIN, SCHEDULES, component, go_together
from diffusion_helpers import TinyNetwork, normal, times, wide
from helpers.exact import Mixture
from torch import Tensor, nn

from langevin.config.validate import options
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import EDMParameterization, V
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.rescalings.input_scaling import InputScaling
from langevin.diffusion.rescalings.resolution_shift import ResolutionShift
from langevin.diffusion.schedules import edm
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.sigmoid import SigmoidSchedule
from langevin.diffusion.schedules.vp import VP
from langevin.diffusion.variance import FixedSmall
from langevin.samplers.ddim import DDIM
from langevin.samplers.sampler import Predictor
from langevin.samplers.timestep_spacing import Trailing

EXPLODING = edm.EDMSchedule(1e-6, 1e6)
"""x_t is x + t eps: the schedule that D itself is told on."""
RATIOS = times(40.0, 20.0, 10.0, 5.0, 2.5, 1.2, 0.6, 0.3, 0.1, 0.05)
"""The levels sigma / alpha that a path visits, where the schedule has them."""
PARAMETERIZATIONS = {option: component("parameterization", option) for option in options("parameterization")}


def exact(z: Tensor, ratio: Tensor) -> Tensor:
    """D: the mean of a mixture of two Gaussians, given z = x + ratio eps."""
    return Mixture(EXPLODING)(z, ratio).x


class Emulator(nn.Module):
    """The network that makes D of a schedule and a parameterization, at the times it knows."""

    def __init__(self, schedule, parameterization, t: Tensor) -> None:
        super().__init__()
        self.schedule, self.parameterization, self.t = schedule, parameterization, t

    def forward(self, x, c_noise, cond=None):
        known = self.parameterization.c_noise(self.schedule, self.t)
        assert len(known.unique()) == len(known)
        output = []
        for shown, noise in zip(x, c_noise, strict=True):
            t = self.t[(known - noise).abs().argmin()]
            level, (a, b) = self.schedule(t), self.parameterization.mix(self.schedule, t)
            x_t = shown / self.parameterization.c_in(level)
            image = exact(x_t / level.alpha, level.ratio)
            output.append(a * image + b * (x_t - level.alpha * image) / level.sigma)
        return torch.stack(output)


def emulated(schedule, parameterization, t: Tensor) -> Denoiser:
    return Denoiser(Emulator(schedule, parameterization, t), GaussianProcess(schedule, parameterization, FixedSmall()))


def falling(schedule) -> Tensor:
    """Times of a schedule from much noise down, whole if it is discrete; the last is that of the data."""
    t = schedule.time_of(RATIOS).clamp(min=schedule.t_min)
    t = (t if schedule.num_steps is None else torch.round(t)).unique().flip(0)
    t = t[schedule(t).ratio < 1e3]  # where signal is left
    return torch.cat([t, times(0.0)])


def path(denoiser, start: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """DDIM's way along the times `t` from x_t / alpha = `start`: x_t / alpha at each, and each predicted image."""
    images: list[Tensor] = []
    predictor = Predictor(denoiser, t, on_prediction=lambda x_t, t, prediction: images.append(prediction.x))
    alpha, places = denoiser.schedule(t).alpha, [start]
    for index, (now, then) in enumerate(pairwise(t)):
        x, _ = DDIM(Trailing(), steps=None).step(predictor, alpha[index] * places[-1], now, then, None, None)
        places.append(x / alpha[index + 1])
    return torch.stack(places), torch.stack(images)


def assert_it_is_d(schedule, parameterization) -> None:
    """That the emulated predictions and the path are those of D itself."""
    t = falling(schedule)
    ratio = schedule(t).ratio
    denoiser = emulated(schedule, parameterization, t[:-1])
    z = normal(len(t) - 1, 1, 2, 2, seed=1) * wide(torch.sqrt(1 + ratio[:-1] ** 2))
    direct = torch.stack([exact(row, r) for row, r in zip(z, ratio[:-1], strict=True)])
    ours = denoiser(wide(schedule(t[:-1]).alpha) * z, t[:-1]).x
    torch.testing.assert_close(ours, direct, rtol=0, atol=1e-10)

    places, images = [z[:1]], []
    for r, following in pairwise(ratio):
        images.append(exact(places[-1], r))
        # Song et al. 2021, equation 13: x_t / alpha moves along eps as sigma / alpha does.
        places.append(places[-1] + (following - r) * (places[-1] - images[-1]) / r)
    seen, predicted = path(denoiser, z[:1], t)
    torch.testing.assert_close(seen, torch.stack(places), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(predicted, torch.stack(images), rtol=0, atol=1e-10)


TOGETHER = [(n, o) for n, s in PLAIN.items() for o, p in PARAMETERIZATIONS.items() if go_together(p, s)]


@pytest.mark.parametrize(("name", "option"), TOGETHER)
def test_of_the_parameterization(name, option):
    assert_it_is_d(PLAIN[name], PARAMETERIZATIONS[option])


@pytest.mark.parametrize(
    "name", [name for name in SCHEDULES if name not in PLAIN], ids=lambda name: name.replace(" ", "+")
)
def test_of_the_rescalings(name):
    assert_it_is_d(SCHEDULES[name], V())


class Reports(nn.Module):
    """A random network that hears EDM's c_noise well."""

    def __init__(self) -> None:
        super().__init__()
        self.network = TinyNetwork(channels=1)

    def forward(self, x, c_noise, cond=None):
        return self.network(x, 200 * c_noise)


def model(schedule) -> Denoiser:
    """One network for all: EDM's preconditioning shows it x_t / alpha, scaled, and tells it sigma / alpha."""
    return Denoiser(Reports(), GaussianProcess(schedule, EDMParameterization(), FixedSmall()))


@pytest.mark.parametrize(
    "name",
    [n for n, s in SCHEDULES.items() if go_together(EDMParameterization(), s)],
    ids=lambda name: name.replace(" ", "+"),
)
def test_one_network_is_one_model_on_every_schedule(name):
    schedule = SCHEDULES[name]
    t = falling(schedule)
    start = 30 * normal(2, 1, 4, 4, seed=2)
    ratio = schedule(t).ratio
    for ours, expected in zip(path(model(schedule), start, t), path(model(EXPLODING), start, ratio), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("changed", "plain", "relabelled"),
    [
        # T steps against continuous time.
        (VP(1000), VP(), lambda t: t / 1000),
        (SigmoidSchedule(40), SigmoidSchedule(), lambda t: t / 40),
        # A larger image is one with less noise.
        (ResolutionShift(edm.EDMSchedule(), 160, 64), edm.EDMSchedule(), lambda t: 2.5 * t),
        (ResolutionShift(VP(), 160, 64), VP(), lambda t: VP().time_of(2.5 * VP()(t).ratio)),
        # Less signal is more noise.
        (InputScaling(edm.EDMSchedule(), 0.5), edm.EDMSchedule(), lambda t: 2 * t),
        (InputScaling(VP(), 0.5), VP(), lambda t: VP().time_of(2 * VP()(t).ratio)),
    ],
)
def test_a_change_of_clock_shift_or_scale_is_a_change_of_time(changed, plain, relabelled):
    t = torch.cat([changed.t_max * times(0.7, 0.5, 0.3, 0.1), times(0.0)])
    start = normal(2, 1, 4, 4, seed=3)
    for ours, expected in zip(path(model(changed), start, t), path(model(plain), start, relabelled(t)), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shift", [2.5, 0.5])
def test_stable_diffusion_3s_shift_is_another_time_of_the_same_flow(shift):
    t = times(0.9, 0.6, 0.3, 0.1)
    later = shift * t / (1 + (shift - 1) * t)
    shifted = ResolutionShift(FlowSchedule(), round(64 * shift), 64)
    z = normal(4, 1, 2, 2, seed=4)
    ours = emulated(shifted, V(), t)(wide(shifted(t).alpha) * z, t)
    expected = emulated(FlowSchedule(), V(), later)(wide(1 - later) * z, later)
    torch.testing.assert_close(ours.x, expected.x, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(ours.eps, expected.eps, rtol=1e-10, atol=1e-11)
