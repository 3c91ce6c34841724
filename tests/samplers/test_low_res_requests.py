"""Super-resolution of correlated Gaussian data by its exact denoiser: samples have the data's law, and go with z."""

import torch
from torch import nn

from langevin.codecs.identity import Identity
from langevin.conditions.low_res import LowRes
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import X
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.linear import Linear
from langevin.images import from_uint8, to_uint8
from langevin.modalities.image import ImageModality
from langevin.samplers.dpm_solver_multistep import DPMSolver2M
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.low_res import LowResRequests
from langevin.samplers.requests import Labels
from langevin.samplers.timestep_spacing import LogSNR

N, PIXELS, S = 4000, 4, 0.4
MEAN = torch.tensor([0.1, -0.1, 0.0, 0.2], dtype=torch.float64)
PLACES = torch.arange(PIXELS, dtype=torch.float64)
COVARIANCE = 0.04 * 0.7 ** (PLACES[:, None] - PLACES).abs()
AVERAGE = torch.full((PIXELS,), 1 / PIXELS, dtype=torch.float64)
ALPHA = (1 - S**2) ** 0.5
VARIANCE = float(AVERAGE @ COVARIANCE @ AVERAGE)  # of z, the mean of the pixels
GAIN = ALPHA * COVARIANCE @ AVERAGE / (ALPHA**2 * VARIANCE + S**2)  # of E[x | z_s] in z_s
REMAINING = COVARIANCE - ALPHA * torch.outer(GAIN, COVARIANCE @ AVERAGE)  # the covariance of x given z_s


class Exact(nn.Module):
    """E[x | x_t, z_s], whatever is given as z_s; it refuses another level than S."""

    def __init__(self, schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t, c_noise, cond):
        assert (cond["low_res_level"] - S).abs().max() < 1e-6
        alpha, sigma = self.schedule(c_noise[0].double() + 1)
        z = cond["low_res"].double().reshape(-1, 1)
        prior = MEAN + (z - ALPHA * AVERAGE @ MEAN) * GAIN
        gain = alpha * REMAINING @ torch.linalg.inv(alpha**2 * REMAINING + sigma**2 * torch.eye(PIXELS).double())
        x = prior + (x_t.double().reshape(-1, PIXELS) - alpha * prior) @ gain.T
        return x.reshape(x_t.shape).to(x_t)


def test_samples_have_the_law_of_the_data_and_go_with_the_small_images():
    """They would not if the small images' noise were missing, of another level, or of the samples' own stream."""
    generator = torch.Generator().manual_seed(0)
    x = MEAN + torch.randn(N, PIXELS, generator=generator).double() @ torch.linalg.cholesky(COVARIANCE).T
    small = to_uint8(x.mean(1)).reshape(N, 1, 1, 1)
    fields = {"max_level": 1.0, "blur_probability": 0.0, "dropout": 0.0, "in_channels": 1, "image_size": 2, "dim": 4}
    condition = LowRes(size=1, augmentation="noise", **fields)
    requests = LowResRequests(Labels(None), small.numpy(), None, S, condition, ImageModality())
    schedule = Linear()
    denoiser = Denoiser(Exact(schedule), GaussianProcess(schedule, X()))
    sampler = DPMSolver2M(LogSNR(), None, 40)
    pipeline = SamplePipeline(sampler, lambda model, device: model, (1, 2, 2), ImageModality(), Identity(), requests)
    batches = pipeline(denoiser, range(N), 0, N, "cpu")
    samples = torch.cat([from_uint8(batch.samples) for batch in batches]).double().reshape(N, PIXELS)
    error = COVARIANCE.diagonal().sqrt() / N**0.5  # of a mean
    assert ((samples.mean(0) - MEAN).abs() < 4 * error).all()
    assert ((samples.T.cov() - COVARIANCE).abs() < 0.08 * 0.04).all()
    z = from_uint8(small).double().flatten()
    together = torch.cat([samples, z[:, None]], dim=1).T.cov()[-1, :PIXELS]
    assert ((together - ALPHA * GAIN * VARIANCE).abs() < 0.08 * 0.04).all()
    assert (ALPHA * GAIN * VARIANCE < 0.25 * COVARIANCE @ AVERAGE).all(), "the noise leaves little of z"
