"""The hidden features of every network: what its taps say of them, and that looking at them changes nothing."""

import copy

import pytest
import torch
import torch._dynamo
from network_helpers import CONF, preset, randomize
from test_compiled import shallow

from langevin.networks.compiled import blocks_of
from langevin.taps import as_maps, tapped, taps_of

PRESETS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
NONE = {"mlp"}


def made(name):
    cls, own = preset(name)
    own = shallow(own) | ({"widths": [8, 16, 32]} if "widths" in own else {})
    network = cls(in_channels=3, out_channels=3, condition=None, **({"image_size": 16} if cls.axes else {}), **own)
    randomize(network)
    return network


def inputs(network):
    return torch.randn(2, 3, *(16,) * network.axes), torch.full((2,), 500.0)


@pytest.mark.parametrize("name", PRESETS)
def test_all_taps_are_called_once_and_are_as_wide_as_they_say(name):
    network = made(name)
    taps, given = taps_of(network), inputs(network)
    assert (network.default_tap in taps) if name not in NONE else (taps == {} and network.default_tap is None)
    calls = []
    for each in taps.values():
        each.module.register_forward_hook(lambda module, *_: calls.append(module))
    plain = network(*given)
    assert [calls.count(each.module) for each in taps.values()] == [1] * len(taps)
    with tapped(network, taps) as found:
        assert torch.equal(network(*given), plain)
    assert {key: maps.shape[:2] for key, maps in found.items()} == {key: (2, tap.channels) for key, tap in taps.items()}
    assert all(maps.ndim == 4 and maps.shape[2] == maps.shape[3] for maps in found.values())
    kept = dict(found)
    network(*given)
    assert all(found[key] is maps for key, maps in kept.items()), "nothing is looked at after the context"


def test_the_patches_of_an_image_are_a_map_row_by_row():
    patches = torch.arange(12.0).reshape(1, 4, 3)
    assert torch.equal(as_maps(patches)[0, :, 1, 0], patches[0, 2])
    maps = torch.zeros(1, 3, 4, 5)
    assert as_maps(maps) is maps


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dit_s", "unet_small", "edm2_xs"])
def test_compiled_blocks_give_them_too(name):
    """Now and then, as a training with validations looks: features and gradients are those of blocks as they are."""
    network, given = made(name), inputs(made(name))
    compiled = copy.deepcopy(network)
    torch._dynamo.reset()
    for block in blocks_of(compiled):
        block.compile(dynamic=False, backend="eager")
    taps = list(taps_of(network))
    with torch._dynamo.config.patch(recompile_limit=64):
        for asked in ([], taps[:1], [], taps[-1:], taps):
            found = []
            for each in (network, compiled):
                with tapped(each, asked) as features:
                    loss = each(*given).square().mean() + sum(maps.square().mean() for maps in features.values())
                loss.backward()
                found.append(
                    (features, [weight.grad.clone() for weight in each.parameters() if weight.grad is not None])
                )
                each.zero_grad()
            (features, gradients), (others, theirs) = found
            assert set(features) == set(others) == set(asked)
            for key, maps in features.items():
                torch.testing.assert_close(others[key], maps, rtol=1e-4, atol=1e-5)
            for ours, other in zip(gradients, theirs, strict=True):
                torch.testing.assert_close(other, ours, rtol=1e-3, atol=1e-4 * ours.abs().max().item() + 1e-9)
    torch._dynamo.reset()
