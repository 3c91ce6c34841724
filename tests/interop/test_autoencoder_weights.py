"""A scaling of the latents built into the weights of diffusers' autoencoders."""

import pytest
import torch
from helpers.autoencoders import autoencoder
from networks.network_helpers import images

from langevin.errors import UserError
from langevin.interop.autoencoder_weights import fold

SHIFT, SCALE = torch.tensor([0.3, -1.0, 0.0, 2.0]), torch.tensor([0.18215, 1.0, 3.0, 0.5])


def folded(kind, shift, scale):
    """An autoencoder, and the same with a scaling built in, in float64."""
    plain, scaled = autoencoder(kind).double(), autoencoder(kind).double()
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    scaled.load_state_dict(fold(plain.state_dict(), shift, scale))
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items()), "a copy"
    return plain.requires_grad_(False), scaled.requires_grad_(False)


def assert_close(found, expected):
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("shift", "scale"), [(SHIFT, SCALE), (0.1159, 0.3611), (0.0, SCALE)])
def test_autoencoder_kl(shift, scale):
    plain, scaled = folded("kl", shift, scale)
    x = images(2, 16).double()
    before, after = (each.encode(x).latent_dist for each in (plain, scaled))
    shift, scale = (torch.as_tensor(each).double().reshape(-1, 1, 1) for each in (shift, scale))
    assert_close(after.mean, (before.mean - shift) * scale)
    assert_close(after.std, before.std * scale)
    z = before.mean
    assert_close(scaled.decode((z - shift) * scale).sample, plain.decode(z).sample)


def test_vq_model():
    plain, scaled = folded("vq", SHIFT, 0.3)
    z = plain.encode(images(2, 16).double()).latents
    of_scaled = scaled.encode(images(2, 16).double()).latents
    assert_close(of_scaled, (z - SHIFT.reshape(-1, 1, 1)) * torch.tensor(0.3).double())
    before, after = plain.quantize(z)[2][2], scaled.quantize(of_scaled)[2][2]
    assert len(before.unique()) > 5
    assert torch.equal(before, after)
    assert_close(scaled.decode(of_scaled).sample, plain.decode(z).sample)


def test_scales_of_the_channels_of_a_codebook():
    """Where the channels do not count alike any more, another code can be the nearest."""
    with pytest.raises(UserError, match="allowed: one number for all channels of a VQModel"):
        fold(autoencoder("vq").state_dict(), 0.0, SCALE)


@pytest.mark.parametrize("scale", [0.0, -1.0, torch.tensor([1.0, 1.0, 1.0, float("nan")])])
def test_a_scale_that_is_none(scale):
    with pytest.raises(UserError, match="allowed: numbers above 0"):
        fold(autoencoder("kl").state_dict(), 0.0, scale)
