"""Every file in conf/model builds, runs and learns."""

import inspect

import pytest
import torch
from network_helpers import CONF, preset, randomize

from langevin.networks.network import Network

PRESETS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
FACTS = {"in_channels", "out_channels", "image_size", "condition"}


@pytest.mark.parametrize("name", PRESETS)
def test_lists_its_own_parameters_and_no_fact_of_the_dataset(name):
    cls, own = preset(name)
    assert issubclass(cls, Network)
    assert set(own) == set(inspect.signature(cls).parameters) - FACTS
    assert set(own) | {"image_size"} == set(inspect.signature(cls.check).parameters)


@pytest.mark.parametrize("name", PRESETS)
def test_every_parameter_learns(name):
    cls, own = preset(name)
    size = next(size for size in (16, 32, 64, 128, 256) if not cls.check(image_size=size, **own))
    network = cls(in_channels=3, out_channels=6, image_size=size, condition=None, **own)
    randomize(network)
    output = network(torch.randn(1, 3, size, size), torch.tensor([500.0]))
    assert output.shape == (1, 6, size, size)
    output.square().mean().backward()
    for parameter_name, parameter in network.named_parameters():
        assert 0 < parameter.grad.norm() < float("inf"), parameter_name
