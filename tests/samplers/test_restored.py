"""What samples are restored from."""

import numpy as np
import torch
from experiments.exact_gaussian import CorrelatedGaussian
from torch.nn import functional

from langevin.codecs.codec import Codec
from langevin.diffusion.schedules.linear import Linear
from langevin.modalities.image import ImageModality
from langevin.restoration.ddnm import DDNM
from langevin.restoration.dps import DPS
from langevin.restoration.operators.average import Average
from langevin.restoration.operators.box import BoxMask
from langevin.restoration.operators.composition import Composition
from langevin.samplers.ddim import DDIM
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.given import Given
from langevin.samplers.requests import Labels
from langevin.samplers.restored import Restored
from langevin.samplers.timestep_spacing import UniformSpacing

SHAPE = (1, 4, 4)
IMAGES = np.random.default_rng(0).integers(60, 200, (3, 4, 4, 1), np.uint8)


class Pooled(Codec):
    """Latents are means of two by two pixels."""

    def spec(self, spec):
        return spec

    def record(self):
        return {"codec": "pooled"}

    def encode(self, x, draws):
        return functional.avg_pool2d(x, 2)

    def decode(self, z):
        return functional.interpolate(z, scale_factor=2, mode="nearest")


def pipeline(method, operator, noise=0.0, of_latents=None, are_measured=False, images=IMAGES):
    given, modality = Given(images, None, None, "digest"), ImageModality()
    restored = Restored(method, operator, noise, given, are_measured, SHAPE, modality, {}, of_latents)
    sampler = DDIM(UniformSpacing(), None, 30)
    guide = lambda denoiser, device: denoiser  # noqa: E731
    return SamplePipeline(sampler, guide, (1, 2, 2), modality, Pooled(), Labels(None), restored=restored)


def sampled(made, indices=(0, 1, 2), batch_size=3):
    model = CorrelatedGaussian(Linear())
    batches = made(model, list(indices), 7, batch_size, "cpu")
    return torch.cat([batch.samples for batch in batches]).movedim(1, -1).numpy()


def test_of_latents_a_mask_knows_those_of_known_pixels_alone():
    mask = Composition({"box": BoxMask(0.25, 0.5, 0.25, 0.0)})  # the pixels (1, 0) and (1, 1) are unknown
    latent = mask.of_latents(SHAPE, (1, 2, 2))
    z = torch.ones(1, 1, 2, 2)
    assert latent(z).flatten().tolist() == [0, 1, 1, 1]
    made = sampled(pipeline(DDNM(), mask, of_latents=latent))
    unknown = np.zeros((4, 4), bool)
    unknown[1, :2] = True
    np.testing.assert_array_equal(made[:, ~unknown], IMAGES[:, ~unknown])
    assert len({*made[:, unknown].flatten().tolist()}) > 1


def test_a_gradient_goes_through_the_codec():
    """Of means of pixels all latents are known, so the samples are the images' means."""
    made = sampled(pipeline(DPS(0.5), Average(2)))
    means = IMAGES.reshape(3, 2, 2, 2, 2).mean((2, 4))
    far = sampled(pipeline(DPS(0.0), Average(2)))
    off = [np.abs(each.reshape(3, 2, 2, 2, 2).mean((2, 4)) - means).mean() for each in (made, far)]
    assert off[0] < 0.3 * off[1]


def test_measurements_have_noise_of_their_sample_alone():
    made = pipeline(DPS(), Average(2), 0.5).restored
    y = made.measured([0, 1, 2], 7, "cpu")
    assert torch.equal(made.measured([2], 7, "cpu"), y[2:])
    assert not torch.equal(made.measured([2], 8, "cpu"), y[2:])
    exact = pipeline(DPS(), Average(2)).restored.measured([0, 1, 2], 7, "cpu")
    assert 0.2 < float((y - exact).std()) < 0.9


def test_what_a_measured_image_holds_where_nothing_is_measured_says_nothing():
    mask, grey, white = BoxMask(), IMAGES.copy(), IMAGES.copy()
    unknown = mask(torch.ones(1, *SHAPE))[0, 0].numpy() == 0
    grey[:, unknown], white[:, unknown] = 127, 255
    parts = [pipeline(DDNM(), mask, are_measured=True, images=images) for images in (grey, white)]
    assert torch.equal(*(part.restored.measured([0, 1], 7, "cpu") for part in parts))
