"""Cascades of Gaussian data by exact denoisers: chained samples have the exact joint law, truncated or not."""

import pytest
import torch
from experiments.exact_gaussian import COV, MEAN, CorrelatedGaussian, posterior
from torch import nn

from langevin.codecs.identity import Identity
from langevin.conditions.low_res import LowRes
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import X
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.errors import UserError
from langevin.images import from_uint8
from langevin.modalities.image import ImageModality
from langevin.samplers.dpm_solver_multistep import DPMSolver2M
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.low_res import LowResRequests
from langevin.samplers.requests import Labels
from langevin.samplers.timestep_spacing import LogSNR
from langevin.samplers.truncated import Truncated

N, S = 20_000, 0.4
SIGNAL = (1 - S**2) ** 0.5
SMALL_MEAN, SMALL_COV = MEAN / 4, COV / 16
"""Of z, the small image (1, 2, 2): far enough inside [-1, 1] to be stored."""
REPEAT = torch.kron(*[torch.kron(torch.eye(2), torch.ones(2, 1)).double()] * 2)
"""(16, 4): each pixel of z becomes a square of x."""
AVERAGE = REPEAT.T / 4
LARGE_MEAN = REPEAT @ SMALL_MEAN
LARGE_COV = REPEAT @ SMALL_COV @ REPEAT.T + 0.01 * (torch.eye(16) - REPEAT @ AVERAGE)
"""Of x (1, 4, 4): its averages are z, beside which each square has detail of its own."""


class ExactUp(nn.Module):
    """E[x | x_t, z_s], of whatever level it is told."""

    def __init__(self, schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t, c_noise, cond):
        s = cond["low_res_level"].double()
        assert (s == s[0]).all()
        seen = torch.sqrt(1 - s[0] ** 2) * AVERAGE
        mean, cov = posterior(LARGE_MEAN, LARGE_COV, seen, cond["low_res"].flatten(1), float(s[0] ** 2))
        return CorrelatedGaussian(self.schedule, mean, cov)(x_t, c_noise[0].double() + 1).x


def pipeline(shape, requests=None):
    sampler, requests = DPMSolver2M(LogSNR(), None, 30), requests or Labels(None)
    return SamplePipeline(sampler, lambda model, device: model, shape, ImageModality(), Identity(), requests)


def made_by(generator, denoiser, seed):
    [batch] = generator(denoiser, range(N), seed, N, "cpu")
    return batch


@pytest.mark.parametrize("truncated", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_chained_samples_have_the_joint_law_of_the_data(truncated):
    """Noise grows in one stage as in EDM and in the other as in DDPM, whose scales of x_s differ."""
    small = CorrelatedGaussian(EDMSchedule(), SMALL_MEAN, SMALL_COV)
    first = pipeline((1, 2, 2))
    if truncated:
        first.truncated = Truncated(small.schedule, first.sampler.times(small.schedule), S)
    batch = made_by(first, small, 0)
    assert (batch.noisy is not None) == truncated
    noisy, stored = None if batch.noisy is None else batch.noisy.numpy(), batch.samples.movedim(1, -1).numpy()

    fields = {"max_level": 1.0, "blur_probability": 0.0, "dropout": 0.0, "in_channels": 1, "image_size": 4, "dim": 4}
    condition = LowRes(size=2, augmentation="noise", **fields)
    requests = LowResRequests(Labels(None), stored, None, S, condition, ImageModality(), noisy)
    schedule = Linear()
    large = Denoiser(ExactUp(schedule), GaussianProcess(schedule, X()))
    x = from_uint8(made_by(pipeline((1, 4, 4), requests), large, 1).samples).flatten(1).double()
    z_s = requests.model_cond(large, range(N), 1, "cpu")["low_res"].flatten(1).double()

    both = torch.cat([torch.eye(16).double(), SIGNAL * AVERAGE])  # of (x, z_s)
    mean, cov = both @ LARGE_MEAN, both @ LARGE_COV @ both.T
    cov[16:, 16:] += S**2 * torch.eye(4)
    found, sd = torch.cat([x, z_s], dim=1), cov.diagonal().sqrt()
    assert ((found.mean(0) - mean).abs() < 0.05 * sd).all()
    assert ((found.T.cov() - cov).abs() < 0.04 * torch.outer(sd, sd)).all()
    assert (cov[:16, 16:] / torch.outer(sd[:16], sd[16:])).max() > 0.2, "they depend on each other"


def test_stops_at_the_level_and_leaves_out_the_rest_of_the_way():
    schedule, own = Linear(), torch.arange(1000, -1, -10).double()
    stop = Truncated(schedule, own, 0.4)
    alpha, sigma = schedule(stop.time)
    assert float(stop.time) == int(stop.time)
    assert stop.level == pytest.approx(float(sigma / torch.hypot(alpha, sigma)))
    assert stop.level <= 0.4 < Truncated(schedule, own, 0.41).level + 0.01
    assert stop.times(own).tolist() == [*own[own > stop.time].tolist(), float(stop.time)]
    assert Truncated(schedule, own, stop.level).time == stop.time, "the level of a step is that step's"
    for level in (0.001, 1.0):
        with pytest.raises(UserError, match=r"allowed: 0\.01 to below 1"):
            Truncated(schedule, own, level)
    with pytest.raises(UserError, match=r"to below 0\.9"):
        Truncated(schedule, own[50:], 0.99)
