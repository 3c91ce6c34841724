"""Latents of a trained autoencoder: their scale in closed form, drawn and decoded."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from langevin.codecs import autoencoder
from langevin.codecs.autoencoder import AutoencoderCodec
from langevin.codecs.codec import LatentStatistics
from langevin.diffusion.draws import SampleDraws
from langevin.errors import OptionError, UserError
from langevin.networks.autoencoders.kl import KLAutoencoder
from langevin.spec import DataSpec

SPEC = DataSpec.of_images(3, 8, 10, "digest")


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = KLAutoencoder(
        in_channels=3, image_size=8, latent_channels=2, channels=8, channel_multipliers=[1, 2], blocks_per_level=1,
        norm_groups=4,
    )  # fmt: skip
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made.eval().requires_grad_(False)


def moments():
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(40, 2, 4, 4, generator=generator) * torch.tensor([3.0, 0.5])[:, None, None] + 100
    return torch.cat([mean, torch.randn(40, 2, 4, 4, generator=generator) - 1], dim=1)


def statistics(codec, parts=7):
    return LatentStatistics.of(codec.mean_and_variance(part) for part in moments().double().split(parts))


def test_the_statistics_are_those_of_the_whole_in_closed_form(network):
    mean, log_variance = (part.double().numpy() for part in moments().chunk(2, dim=1))
    found = statistics(AutoencoderCodec(SPEC, network))
    np.testing.assert_allclose(found.mean, mean.mean((0, 2, 3)), rtol=1e-12)
    variance = mean.var((0, 2, 3)) + np.exp(log_variance).mean((0, 2, 3))
    np.testing.assert_allclose(found.variance, variance, rtol=1e-10)


@pytest.mark.parametrize("scaling", ["channels", "global", 0.18215])
def test_latents_are_scaled_by_what_they_are(network, scaling):
    codec = AutoencoderCodec(SPEC, network, scaling=scaling)
    codec.fit(statistics(codec))
    many = moments().repeat(50, 1, 1, 1)
    z = codec.latents(many, SampleDraws(0, range(len(many)), (3, 8, 8)))
    if scaling == "channels":
        np.testing.assert_allclose(z.mean((0, 2, 3)), [0, 0], atol=0.02)
        np.testing.assert_allclose(z.std((0, 2, 3)), [1, 1], atol=0.02)
    else:
        noise = SampleDraws(0, range(len(many)), (3, 8, 8)).normal((2, 4, 4))
        drawn = many[:, :2] + torch.exp(0.5 * many[:, 2:]) * noise
        factor = scaling if isinstance(scaling, float) else 1 / float(drawn.double().std())
        torch.testing.assert_close(z, factor * drawn, rtol=1e-2 if scaling == "global" else 1e-6, atol=0)


def test_decoding_undoes_the_scale(network):
    codec = AutoencoderCodec(SPEC, network)
    codec.fit(statistics(codec))
    x = torch.rand(5, 3, 8, 8) * 2 - 1
    mean, variance = codec.mean_and_variance(codec.moments(x))
    z = codec.encode(x, SampleDraws(0, range(5), (3, 8, 8)))
    back = z * codec.scale + codec.shift
    noise = SampleDraws(0, range(5), (3, 8, 8)).normal((2, 4, 4))
    torch.testing.assert_close(back, mean + variance.sqrt() * noise, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(codec.decode(z), network.decode(back))
    assert codec.spec(SPEC) == DataSpec((2, 4, 4), 10, SPEC.modality, None, "digest")


def test_a_batch_is_encoded_and_decoded_in_parts_that_fit(network, monkeypatch):
    codec, x = AutoencoderCodec(SPEC, network), torch.rand(7, 3, 8, 8)
    whole = codec.moments(x), codec.decode(torch.ones(7, 2, 4, 4))
    seen = []
    monkeypatch.setattr(autoencoder, "PIXELS", 3 * 64)
    monkeypatch.setattr(network, "moments", lambda part: seen.append(len(part)) or KLAutoencoder.moments(network, part))
    torch.testing.assert_close((codec.moments(x), codec.decode(torch.ones(7, 2, 4, 4))), whole)
    assert seen == [3, 3, 1]


def test_latents_that_do_not_vary_are_refused(network):
    codec = AutoencoderCodec(SPEC, network)
    with pytest.raises(
        OptionError, match=re.escape("scaling is channels, but the latents' standard deviations are 1, 0")
    ):
        codec.fit(LatentStatistics(torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)))
    assert float(codec.scale.min()) == 1, "as it was"
    AutoencoderCodec(SPEC, network, scaling=2.0).fit(LatentStatistics(torch.zeros(2), torch.zeros(2)))


def test_samples_that_it_is_not_for(network):
    codec = AutoencoderCodec(SPEC, network, channels=3)
    with pytest.raises(UserError, match="is of a run on images of 3 channels, and these have 1"):
        codec.spec(DataSpec.of_images(1, 8, None))
    with pytest.raises(UserError, match=re.escape("is of images (C, H, W), and these samples are of shape (2,)")):
        codec.spec(DataSpec((2,), None, SPEC.modality))
    with pytest.raises(OptionError, match=r"whose weights are [0-9a-f]{8} now; allowed: those of 00000000"):
        AutoencoderCodec(
            SPEC, network, run="here", weights="0" * 64, load_autoencoder=lambda option, place: network.state_dict()
        )
    with pytest.raises(OptionError, match="4 levels, which need images of 8 pixels a side or more, and these have 4"):
        KLAutoencoder(
            in_channels=3, image_size=4, latent_channels=2, channels=32, channel_multipliers=[1] * 4, blocks_per_level=1
        )
