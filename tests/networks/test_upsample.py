"""Doubling the resolution: repeated pixels under a convolution, by whatever way it is computed."""

import pytest
import torch
from torch.nn import functional

from langevin.networks.blocks.resample import Upsample


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 11), (16, 8)])
def test_is_a_convolution_of_repeated_pixels(size):
    torch.manual_seed(0)
    up = Upsample(32).double()
    torch.nn.init.normal_(up.conv.bias)
    x = torch.randn(2, 32, *size, dtype=torch.float64, requires_grad=True)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = functional.conv2d(repeated, up.conv.weight, up.conv.bias, padding=1)
    given = up(x, torch.empty(0))
    torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)
    change = torch.randn_like(expected)
    inputs = (x, up.conv.weight, up.conv.bias)
    gradients = (torch.autograd.grad(out, inputs, change) for out in (given, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_in_float32_the_difference_is_rounding():
    torch.manual_seed(0)
    up, x = Upsample(64), torch.randn(4, 64, 16, 16)
    exact = up.double()(x.double(), torch.empty(0))
    rounded = up.float()(x, torch.empty(0)).double()
    assert (rounded - exact).abs().max() < 3e-6 * exact.abs().max()


def test_a_large_map_keeps_its_layout():
    x = torch.randn(2, 32, 8, 8).to(memory_format=torch.channels_last)
    up = Upsample(32).to(memory_format=torch.channels_last)
    assert up(x, torch.empty(0)).is_contiguous(memory_format=torch.channels_last)
