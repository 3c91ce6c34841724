"""The loss of an autoencoder against sums and gradients written out by hand. (Objectives of diffusion: diffusion/.)"""

import pytest
import torch
from torch import nn
from torch.nn import functional

from langevin.autoencoding.model import AutoencoderModel
from langevin.autoencoding.objective import Reconstruction, adaptive_weight
from langevin.diffusion.draws import BatchDraws
from langevin.errors import OptionError
from langevin.networks.autoencoders.kl import KLAutoencoder
from langevin.networks.patch_discriminator import PatchDiscriminator

SIZE = {"in_channels": 1, "image_size": 8}


class Halves(nn.Module):
    """A distance with a weight of its own, which is not trained."""

    def __init__(self):
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5), requires_grad=False)

    def forward(self, x, target):
        return self.share * (x - target).abs().flatten(1).sum(1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = KLAutoencoder(
        **SIZE, latent_channels=2, channels=8, channel_multipliers=[1, 2], blocks_per_level=1, norm_groups=4
    )
    for parameter in network.parameters():  # else the branches' last layers are zeros
        nn.init.normal_(parameter, std=0.2)
    return AutoencoderModel(network)


@pytest.fixture
def discriminator():
    torch.manual_seed(1)
    return PatchDiscriminator(in_channels=1, image_size=8, channels=8, layers=1)


def batch():
    return {"x": torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(2)).tanh()}


def draws(x):
    return BatchDraws(3, x, len(x))


@pytest.mark.parametrize("pixel", ["l1", "l2"])
def test_the_terms_are_latent_diffusions_divided_by_the_values_of_an_image(model, pixel):
    x = batch()["x"]
    model.network.kl_weight = 0.25
    moments = model.network.moments(x)
    mean, log_variance = moments.chunk(2, dim=1)
    normal = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum((1, 2, 3))
    z = mean + torch.exp(0.5 * log_variance) * draws(x).normal((2, 4, 4))
    difference = model.network.decode(z) - x
    error = (difference.abs() if pixel == "l1" else difference.square()).sum((1, 2, 3))
    distance = 0.5 * difference.abs().sum((1, 2, 3))
    expected = (error + 64 * 3 * distance + 0.25 * kl) / 64  # LDM adds the distance to the error of every value
    terms = Reconstruction(Halves(), pixel=pixel, perceptual_weight=3.0)(model, batch(), draws(x))
    torch.testing.assert_close(terms["loss"], expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(terms["kl"], kl, rtol=1e-6, atol=1e-6)


def test_the_adversarial_loss_and_the_discriminators_own(model, discriminator):
    """Every gradient, of each role by itself, and the weight that balances them at the last layer."""
    x, last = batch()["x"], model.network.last_weight
    z = model.network.latents(model.network.moments(x), lambda: draws(x).normal((2, 4, 4)))
    made = model.network.decode(z)
    mean, log_variance = model.network.moments(x).chunk(2, dim=1)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum((1, 2, 3))
    error = (made - x).abs().mean()
    generator = -discriminator(made).mean()
    own = 0.5 * (
        functional.relu(1 - discriminator(x)).mean() + functional.relu(1 + discriminator(made.detach())).mean()
    )
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (error, generator)]
    weight = float((64 * norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4)) / 64  # with the error as a sum, as CompVis has it
    assert 0.01 < weight < 1e4 / 64
    loss = error + (1e-6 * kl / 64).mean() + 0.7 * weight * generator
    expected = [
        *torch.autograd.grad(loss, list(model.network.parameters()), retain_graph=True),
        *torch.autograd.grad(own, list(discriminator.parameters())),
    ]
    objective = Reconstruction(discriminator=discriminator, adversarial_weight=0.7, adversarial_start=5)
    objective.step = 5
    terms = objective(model, batch(), draws(x))
    roles = objective.parameters_by_role(model)
    assert list(roles) == ["model", "discriminator"]
    terms["loss"].mean().backward()
    found = [parameter.grad for role in roles.values() for parameter in role]
    for mine, theirs in zip(
        [p.grad for p in (*model.network.parameters(), *discriminator.parameters())], expected, strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    assert len(found) == len(expected)
    torch.testing.assert_close(terms["adversarial_weight"], torch.full((4,), weight), rtol=1e-5, atol=0)
    torch.testing.assert_close(terms["discriminator"].mean(), own, rtol=1e-5, atol=0)


def test_before_its_start_the_discriminator_takes_part_without_effect(model, discriminator):
    objective = Reconstruction(discriminator=discriminator, adversarial_start=5)
    objective.step = 4
    objective(model, batch(), draws(batch()["x"]))["loss"].mean().backward()
    assert all(bool((parameter.grad == 0).all()) for parameter in discriminator.parameters())
    plain = Reconstruction()
    expected = torch.autograd.grad(
        plain(model, batch(), draws(batch()["x"]))["loss"].mean(), list(model.network.parameters())
    )
    for parameter, gradient in zip(model.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_in_a_validation_latents_are_means_and_no_discriminator_is_asked(model, discriminator):
    objective = Reconstruction(discriminator=discriminator, adversarial_start=0).eval()
    x = batch()["x"]
    terms = objective(model, batch(), draws(x))
    made = model.network.decode(model.network.moments(x).chunk(2, dim=1)[0])
    torch.testing.assert_close(terms["mse"], (made - x).square().mean((1, 2, 3)))
    assert set(terms) == {"loss", "mse", "kl"}


def test_the_weight_has_no_gradient_and_bounds(model):
    last = model.network.last_weight
    total = last.sum()
    norm = float(torch.ones_like(last).norm())
    for adversarial, expected in ((0 * total, 1e4 / 64), (1e6 * total, norm / (1e6 * norm + 1e-4))):
        weight = adaptive_weight(total, adversarial, last, draws(batch()["x"]), 64)
        assert float(weight) == pytest.approx(expected, rel=1e-4)
        assert not weight.requires_grad


def test_a_distances_weights_are_not_saved_and_not_missed(model):
    objective = Reconstruction(Halves())
    holder = nn.ModuleDict({"objective": objective})
    assert list(holder.state_dict()) == []
    holder.load_state_dict({})
    nn.Module.register_parameter(objective, "learned", nn.Parameter(torch.zeros(1)))
    with pytest.raises(RuntimeError, match="learned"):
        holder.load_state_dict({})


def test_images_too_small_for_a_discriminator_are_refused():
    with pytest.raises(OptionError, match=r"layers is 3, for images of 24 pixels a side or more, and these have 16"):
        PatchDiscriminator(in_channels=3, image_size=16)
    logits = PatchDiscriminator(in_channels=3, image_size=24, channels=8)(torch.zeros(2, 3, 24, 24))
    assert logits.shape == (2, 1, 1, 1)
    assert PatchDiscriminator(in_channels=3, image_size=64, channels=8)(torch.zeros(2, 3, 64, 64)).shape == (2, 1, 6, 6)
