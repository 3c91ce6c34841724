"""Convolutions are given channels innermost, in the precision that they compute in."""

import pytest
import torch
from network_helpers import images, labelled, randomize, tiny
from torch import nn

from langevin.networks.blocks.block import innermost
from langevin.networks.blocks.resample import BOX, FilterUp

LAST = torch.channels_last


def test_what_is_as_it_should_be_is_not_copied():
    x = torch.randn(2, 8, 4, 4).to(memory_format=LAST)
    assert innermost(x) is x
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        assert innermost(x) is x


def test_double_precision_and_shapes_alone_are_left_as_they_are():
    """Autocast leaves float64, and knows no device "meta", on which networks are built for their shapes."""
    with torch.autocast("cpu", torch.bfloat16):
        assert innermost(torch.randn(2, 8, 4, 4, dtype=torch.float64)).dtype == torch.float64
    assert innermost(torch.empty(2, 8, 4, 4, device="meta")).is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_layout_and_precision_are_those_of_the_convolution(half):
    x = torch.randn(2, 8, 4, 4, requires_grad=True)
    conv = nn.Conv2d(8, 8, 3)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        given, expected = innermost(x), conv(x)
        assert torch.equal(conv(given), expected)
    assert given.is_contiguous(memory_format=LAST)
    assert given.dtype == expected.dtype == (torch.bfloat16 if half else torch.float32)
    (gradient,) = torch.autograd.grad(given.float().square().sum(), x)
    assert torch.equal(gradient, 2 * given.detach().to(x.dtype))


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_the_network_is_the_same_without(monkeypatch, half):
    """Equal to the bit, gradients too, on the CPU, where normalization keeps the layout."""
    network = tiny(condition=labelled(), scale_shift=True, residual_resampling=True)
    randomize(network)
    x, t, cond = images(2, 8)[:, :2], torch.tensor([1.0, 900.0]), {"label": torch.tensor([1, -1])}

    def outcome():
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = network(x, t, cond)
        out.float().square().mean().backward()
        return [out.detach(), *(weight.grad for weight in network.parameters())]

    ours = outcome()
    for module in ("networks.blocks.residual", "networks.unet"):
        monkeypatch.setattr(f"langevin.{module}.innermost", lambda features: features)
    for mine, expected in zip(ours, outcome(), strict=True):
        assert torch.equal(mine, expected)


def test_upsampling_keeps_the_type(monkeypatch):
    """On a GPU autocast gives it float32."""
    real = nn.functional.interpolate
    monkeypatch.setattr(nn.functional, "interpolate", lambda x, **options: real(x, **options).float())
    x = torch.randn(1, 4, 2, 2).bfloat16()
    doubled = FilterUp(BOX)(x)
    assert doubled.dtype == torch.bfloat16
    assert torch.equal(doubled, x.repeat_interleave(2, 2).repeat_interleave(2, 3))
