"""Every file in conf/classifier builds, runs and learns."""

import inspect

import pytest
import torch
from network_helpers import CONF, preset, randomize

from langevin.errors import UserError
from langevin.networks.classifier_network import ClassifierNetwork
from langevin.networks.half_unet import HalfUNet

PRESETS = sorted(path.stem for path in (CONF / "classifier").glob("*.yaml"))
SPEC = {"in_channels", "num_classes", "image_size"}
TINY = {
    "channels": 32,
    "channel_multipliers": [1, 2],
    "blocks_per_level": 1,
    "attention_resolutions": [4],
    "head_channels": 16,
    "dropout": 0.0,
}


def tiny(**changes):
    return HalfUNet(**({"in_channels": 2, "num_classes": 5, "image_size": 8} | TINY | changes))


@pytest.mark.parametrize("name", PRESETS)
def test_lists_its_own_parameters_and_no_fact_of_the_dataset(name):
    cls, own = preset(name, "classifier")
    assert issubclass(cls, ClassifierNetwork)
    assert set(own) == set(inspect.signature(cls).parameters) - SPEC


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_every_parameter_learns(name, autocast):
    cls, own = preset(name, "classifier")
    own = own | {"channels": 32, "head_channels": own["head_channels"] and 16}
    network = cls(in_channels=3, num_classes=7, image_size=32, **own)
    randomize(network)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = network(torch.randn(2, 3, 32, 32), torch.tensor([500.0, 3.0]))
    assert logits.shape == (2, 7)
    torch.nn.functional.cross_entropy(logits.float(), torch.tensor([2, 4])).backward()
    for parameter_name, parameter in network.named_parameters():
        if parameter_name != "pool.qkv.bias":  # that of the key shifts all scores alike
            assert 0 < parameter.grad.norm() < float("inf"), parameter_name


@pytest.mark.parametrize(
    ("size", "changes", "expected"),
    [
        # guided-diffusion's own, of the flags it publishes, counted. The 128 and 256 ones have two blocks in a level.
        (64, {}, 65_438_568),
        (128, {"blocks_per_level": 2, "channel_multipliers": [1, 1, 2, 3, 4]}, 42_568_040),
        (256, {"blocks_per_level": 2, "channel_multipliers": [1, 1, 2, 2, 4, 4]}, 54_096_360),
    ],
)
def test_number_of_parameters_of_the_published_ones(size, changes, expected):
    cls, own = preset("adm_64", "classifier")
    with torch.device("meta"):
        network = cls(in_channels=3, num_classes=1000, image_size=size, **(own | changes))
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_at_first_no_class_is_likelier():
    assert not tiny()(torch.randn(3, 2, 8, 8), torch.tensor([1.0, 10.0, 900.0])).any()


def test_sees_every_pixel_the_noise_level_and_the_place():
    network = tiny()
    randomize(network)
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logits = network(x, torch.tensor([100.0]))
    (gradient,) = torch.autograd.grad(logits[0, 0], x)
    assert (gradient != 0).all()
    assert (network(x, torch.tensor([900.0])) - logits).abs().max() > 1e-2
    assert (network(x.flip(3), torch.tensor([100.0])) - logits).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": 40}, "channels is 40; allowed"),
        ({"image_size": 7}, "channel_multipliers has 2 levels, and image_size=7"),
        ({"head_channels": 48}, "head_channels is 48; allowed"),
    ],
)
def test_mistakes(changes, words):
    with pytest.raises(UserError, match=words):
        tiny(**changes)
