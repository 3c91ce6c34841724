"""The same weights in diffusers' AutoencoderKL and VQModel and in ours; the penalties of the latents."""

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution, VectorQuantizer
from network_helpers import images, norms, preset, randomize
from torch.distributions import Normal, kl_divergence

from langevin.interop.autoencoder_weights import DIFFUSERS, renamed, to_diffusers
from langevin.interop.autoencoders import part_of
from langevin.networks.autoencoders.kl import LOG_VARIANCES, KLAutoencoder

SIZE, BATCH = 32, 2
TINY = {
    "channels": 32,
    "channel_multipliers": [1, 2],
    "blocks_per_level": 1,
    "latent_channels": 3,
    "norm_groups": 8,
}
CHANGES = [
    {},
    {"middle_attention": False},
    {"norm_groups": 16, "channels": 64, "channel_multipliers": [1]},
    {"norm_groups": 32, "channel_multipliers": [1, 2, 4, 4], "blocks_per_level": 2},
    {"norm_groups": 8, "channels": 24, "channel_multipliers": [2, 3]},
]
OUTPUT, GRADIENT = 1e-5, 1e-4
"""What may differ, relative to the greatest value."""


def networks(name, kind, tiny=TINY, **changes):
    """Ours and diffusers' with the same weights, of the preset `name` with other fields."""
    cls, fields = preset(name, "autoencoder")
    own = fields | tiny | changes
    ours = cls(in_channels=3, image_size=SIZE, **own)
    part = part_of(ours, own)
    assert part.kind == kind.__name__
    theirs = kind(**part.config)
    randomize(theirs)
    ours.load_state_dict(renamed(theirs.state_dict(), own, DIFFUSERS), strict=True)
    assert norms(ours) == norms(theirs)
    return ours.eval(), theirs.eval(), own


def assert_close(mine, expected, limit):
    assert expected.std() > 0
    difference = float((mine - expected).detach().abs().max() / expected.detach().abs().max())
    print(f"{difference:.1e}")  # for peers.md
    assert difference < limit


def mixed(output):
    """A random mixture of an output's values."""
    return (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(7))).sum()


def gradients(network, x, output):
    """Of a mixture of an output, with respect to the input and to those weights that it depends on, by name."""
    found = torch.autograd.grad(mixed(output), [x, *network.parameters()], allow_unused=True)
    named = dict(zip(["x", *(name for name, _ in network.named_parameters())], found, strict=True))
    return {name: gradient for name, gradient in named.items() if gradient is not None}


def assert_same_gradients(ours, theirs, own, x, mine, expected):
    """The x is that of `mine` and of `expected`, which two networks made of it."""
    found, wanted = gradients(ours, x, mine), gradients(theirs, x, expected)
    assert_close(found.pop("x"), wanted.pop("x"), GRADIENT)
    assert len(found) > 20
    # Renaming needs the weights of both halves; where there is no gradient it is 0.
    whole = {name: found.get(name, torch.zeros_like(tensor)) for name, tensor in ours.state_dict().items()}
    # A key's bias moves no softmax: its gradient is nothing but rounding.
    floor = 1e-2 * max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in to_diffusers(whole, own).items():
        expected = wanted.get(name, torch.zeros_like(gradient))
        assert float((gradient - expected).abs().max()) <= GRADIENT * max(floor, float(expected.abs().max())), name


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "-".join(f"{name}" for name in changes) or "tiny")
def test_autoencoder_kl(changes):
    ours, theirs, own = networks("kl_f8", AutoencoderKL, **changes)
    x = images(BATCH, SIZE).requires_grad_()
    mine, posterior = ours.moments(x), theirs.encode(x).latent_dist
    assert_close(mine, posterior.parameters, OUTPUT)
    assert_same_gradients(ours, theirs, own, x, mine, posterior.parameters)
    for found, expected in zip(ours.mean_and_variance(mine), (posterior.mean, posterior.var), strict=True):
        assert_close(found, expected, OUTPUT)
    noise = torch.randn(posterior.mean.shape)
    z = posterior.mean + posterior.std * noise
    assert_close(ours.latents(mine, lambda: noise), z, OUTPUT)
    z = z.detach().requires_grad_()
    mine, expected = ours.decode(z), theirs.decode(z).sample
    assert_close(mine, expected, OUTPUT)
    assert_same_gradients(ours, theirs, own, z, mine, expected)


@pytest.mark.parametrize("changes", CHANGES[:3], ids=lambda changes: "-".join(f"{name}" for name in changes) or "tiny")
def test_vq_model(changes):
    ours, theirs, own = networks("vq_f4", VQModel, num_codes=50, **changes)
    x = images(BATCH, SIZE).requires_grad_()
    mine, z = ours.moments(x), theirs.encode(x).latents
    assert_close(mine, z, OUTPUT)
    assert_same_gradients(ours, theirs, own, x, mine, z)
    quantised, _, (_, _, numbers) = theirs.quantize(z)
    assert len(numbers.unique()) > 5
    assert torch.equal(ours.nearest(z).flatten(), numbers)
    assert_close(ours.quantised(z), quantised, OUTPUT)
    assert_close(ours.decode(z), theirs.decode(z).sample, OUTPUT)
    # As in training: through the quantisation to the encoder, the codes left out.
    mine, expected = ours(x).x, theirs(x).sample
    assert_close(mine, expected, OUTPUT)
    assert_same_gradients(ours, theirs, own, x, mine, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("kl_f8", AutoencoderKL), ("kl_f4", AutoencoderKL), ("vq_f4", VQModel)])
def test_presets(name, kind):
    """At full width."""
    ours, theirs, _ = networks(name, kind, {})
    x = images(1, SIZE).requires_grad_()
    made = theirs.encode(x)
    mine, expected = ours.moments(x), made.latents if kind is VQModel else made.latent_dist.parameters
    assert_close(mine, expected, OUTPUT)
    assert_close(*(torch.autograd.grad(mixed(each), x)[0] for each in (mine, expected)), GRADIENT)
    z = ours.mean_and_variance(expected)[0].detach().requires_grad_()
    mine, expected = ours.decode(z), theirs.decode(z).sample
    assert_close(mine, expected, OUTPUT)
    if kind is VQModel:
        assert torch.equal(ours.nearest(z).flatten(), theirs.quantize(z)[2][2])
    else:
        assert_close(*(torch.autograd.grad(mixed(each), z)[0] for each in (mine, expected)), GRADIENT)


@pytest.mark.parametrize("legacy", [True, False])
def test_penalty_of_a_codebook(legacy):
    """With its gradients: legacy and not are the same number where commitment is 1 only."""
    ours, theirs, _ = networks("vq_f4", VQModel, num_codes=50, legacy=legacy, commitment=0.3, codebook_weight=2.0)
    quantizer = VectorQuantizer(50, 3, beta=0.3, legacy=legacy)
    quantizer.load_state_dict(theirs.quantize.state_dict())
    x = images(BATCH, SIZE)
    z = theirs.encode(x).latents
    _, loss, _ = quantizer(z)
    made = ours(x)
    assert made.penalty.shape == (BATCH,)
    torch.testing.assert_close(made.penalty.mean(), 2 * loss, rtol=OUTPUT, atol=0)
    for mine, expected in (
        (ours.codes.weight, quantizer.embedding.weight),
        (ours.encoder.first.weight, theirs.encoder.conv_in.weight),
    ):
        (found,) = torch.autograd.grad(made.penalty.mean(), mine, retain_graph=True)
        (wanted,) = torch.autograd.grad(2 * loss, expected, retain_graph=True)
        assert_close(found, wanted, GRADIENT)


def test_kl_divergence():
    """In nats an image, as torch.distributions has it; the penalty is that by the values of an image."""
    ours, _, _ = networks("kl_f8", AutoencoderKL, kl_weight=0.5)
    x = images(BATCH, SIZE)
    mean, log_variance = ours.moments(x).double().chunk(2, dim=1)
    posterior = Normal(mean, (0.5 * log_variance.clamp(*LOG_VARIANCES)).exp())
    expected = kl_divergence(posterior, Normal(0.0, 1.0)).flatten(1).sum(1)
    made = ours(x)
    torch.testing.assert_close(made.terms["kl"].double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(made.penalty.double(), 0.5 * expected / (3 * SIZE**2), rtol=1e-6, atol=0)


def test_log_variances_are_clamped():
    ours, _, _ = networks("kl_f8", AutoencoderKL)
    moments = torch.tensor([-100.0, -30.0, 0.0, 20.0, 100.0]).reshape(-1, 1, 1, 1).expand(-1, 6, 2, 2)
    assert torch.equal(ours.mean_and_variance(moments)[1], DiagonalGaussianDistribution(moments).var)


@pytest.mark.parametrize("seed", range(3))
def test_no_channel_of_the_latents_is_lost_in_the_beginning(seed):
    """With a map next to singular, of two channels one stayed unused for a whole training (24 dB, not 28)."""
    torch.manual_seed(seed)
    network = KLAutoencoder(
        in_channels=1, image_size=8, latent_channels=2, channels=32, channel_multipliers=[1, 2], blocks_per_level=1
    )
    for layer in (network.before, network.after):
        assert float(torch.linalg.cond(layer.weight.flatten(1))) == pytest.approx(1, abs=1e-4)
