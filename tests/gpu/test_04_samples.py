"""Sample i is the same at any batch size."""

import torch
from experiments.speed.work import fill_zeros
from network_helpers import tiny

from langevin.codecs.identity import Identity
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.variance import FixedSmall
from langevin.features.extractor import _without_tf32
from langevin.modalities.image import ImageModality
from langevin.samplers.ddim import DDIM
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.requests import Labels
from langevin.samplers.thresholding import Static
from langevin.samplers.timestep_spacing import Trailing

NUMBER = 7


def unguided(model, device):
    return model


@torch.no_grad()
def made(denoiser, size, batch_size, device):
    generator = SamplePipeline(
        DDIM(Trailing(), Static(), 10), unguided, (3, size, size), ImageModality(), Identity(), Labels(None)
    )
    batches = list(generator(denoiser, range(NUMBER), 0, batch_size, device))
    assert all(batch.samples.device.type == device for batch in batches)
    return torch.cat([batch.samples.cpu() for batch in batches]).int()


def test_samples_do_not_depend_on_the_batch_size(device, rehearsal, record_property):
    torch.manual_seed(0)
    channels, size = (32, 8) if rehearsal else (128, 32)
    network = tiny(in_channels=3, out_channels=3, image_size=size, channels=channels, attention_resolutions=[size // 2])
    denoiser = Denoiser(fill_zeros(network).to(device).eval(), GaussianProcess(Linear(1000), Eps(), FixedSmall()))
    with _without_tf32():
        single, together = (made(denoiser, size, batch_size, device) for batch_size in (1, NUMBER))
    assert single.float().std() > 10
    apart = (single - together).abs()
    record_property("differing values, share", float((apart > 0).float().mean()))
    record_property("greatest difference, levels", int(apart.max()))
    tf32 = (made(denoiser, size, 1, device) - made(denoiser, size, NUMBER, device)).abs()
    record_property("torch's default: differing values, share", float((tf32 > 0).float().mean()))
    record_property("torch's default: greatest difference, levels", int(tf32.max()))
    assert apart.max() <= 1
    assert (apart > 0).float().mean() <= 1e-3
