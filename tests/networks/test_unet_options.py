"""What each option of the U-Net does, by its definition."""

import math

import numpy as np
import pytest
import torch
from diffusers.models.downsampling import downsample_2d
from diffusers.models.upsampling import upsample_2d
from network_helpers import labelled, randomize, tiny
from scipy.signal import upfirdn
from torch.nn import functional

from langevin.networks.blocks.attention import SelfAttention
from langevin.networks.blocks.progressive import ProgressiveInput
from langevin.networks.blocks.resample import FilterDown, FilterUp
from langevin.networks.blocks.residual import ResidualBlock

TIMES = torch.tensor([1.0, 2.0])
FILTERS = [(1, 1), (1, 3, 3, 1), (1, 2), (1, 2, 3, 3, 2, 1)]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def along_both(x, function):
    """Apply a function of the last axis to the rows, then to the columns."""
    for _ in range(2):
        x = np.apply_along_axis(function, -1, x.numpy())
        x = torch.from_numpy(x).transpose(-1, -2)
    return x


@pytest.mark.parametrize("taps", FILTERS)
def test_filter_down_filters_and_takes_every_second(taps):
    x = noise(2, 3, 8, 6)
    ends = len(taps) // 2 - 1
    weights = np.array(taps[::-1]) / sum(taps)  # torch correlates, numpy convolves

    def expected_row(row):
        padded = np.pad(row, ends)
        return np.convolve(padded, weights, mode="valid")[::2]

    torch.testing.assert_close(FilterDown(taps)(x), along_both(x, expected_row), rtol=0, atol=1e-6)


@pytest.mark.parametrize("taps", FILTERS)
def test_filter_up_puts_zeros_between_and_filters(taps):
    x = noise(2, 3, 4, 5)
    ends = len(taps) // 2 - 1
    weights = 2 * np.array(taps) / sum(taps)

    def expected_row(row):
        full = upfirdn(weights, row, up=2)
        return full[ends : ends + 2 * len(row)]

    torch.testing.assert_close(FilterUp(taps)(x), along_both(x, expected_row), rtol=0, atol=1e-6)


def test_filters_equal_diffusers():
    x = noise(2, 3, 8, 8).float()
    kernel = (1, 3, 3, 1)
    torch.testing.assert_close(FilterDown([1, 3, 3, 1])(x), downsample_2d(x, kernel))
    torch.testing.assert_close(FilterUp([1, 3, 3, 1])(x), upsample_2d(x, kernel))


def test_progressive_input_is_convolved_filtered_and_joined():
    block = ProgressiveInput(3, 32, FilterDown([1, 3, 3, 1])).double()
    randomize(block)
    x, pyramid = noise(2, 32, 4, 4), noise(2, 3, 8, 8, seed=1)
    # The filter reaches one pixel beyond the edge, where it finds what the convolution gives of a zero border.
    convolved = functional.conv2d(functional.pad(pyramid, (2, 2, 2, 2)), block.conv.weight, block.conv.bias)
    weights = np.array([1, 3, 3, 1]) / 8
    filtered = along_both(convolved.detach(), lambda row: np.convolve(row, weights, mode="valid")[::2])
    torch.testing.assert_close(block(x, pyramid), (x + filtered) / math.sqrt(2), rtol=0, atol=1e-6)


def test_each_progressive_input_starts_from_the_one_above():
    network = tiny(channel_multipliers=[1, 2, 2], progressive_input=True)
    randomize(network)
    given, gave, taken = [], [], []
    for block in network.progressive.values():
        block.register_forward_hook(lambda module, inputs, output: given.append(inputs[1]))
        block.register_forward_hook(lambda module, inputs, output: gave.append(output))
    network.down[2].register_forward_hook(lambda module, inputs, output: taken.append(inputs[0]))
    x = noise(2, 2, 8, 8).float()
    network(x, TIMES)
    assert torch.equal(given[0], x)
    assert torch.equal(given[1], gave[0])
    assert torch.equal(taken[0], gave[0])


def test_scale_and_shift_come_after_the_normalization():
    block = ResidualBlock(32, 64, 16, dropout=0.0, scale_shift=True).double()
    randomize(block)
    x, embedding = noise(2, 32, 4, 4), noise(2, 16, seed=1)
    h = block.conv1(functional.silu(functional.group_norm(x, 8, block.norm1.weight, block.norm1.bias, 1e-6)))
    scale, shift = block.embed(functional.silu(embedding)).view(2, 2, 64, 1, 1).unbind(1)
    h = functional.group_norm(h, 16, block.norm2.weight, block.norm2.bias, 1e-6) * (1 + scale) + shift
    torch.testing.assert_close(block(x, embedding), block.shortcut(x) + block.conv2(functional.silu(h)))


def test_rescaled_sums_divide_by_the_root_of_two():
    features = noise(2, 64, 4, 4).float()
    network = tiny(skip_rescale=True)
    # Two residual blocks and an attention, whose branches start at zero.
    torch.testing.assert_close(network.middle(features, torch.randn(2, 128)), features / 2**1.5)


@pytest.mark.parametrize("projected", [False, True])
def test_resolution_changes_inside_residual_blocks(projected):
    network = tiny(residual_resampling=True, resample_projection=projected, resample_filter=[1, 3, 3, 1])
    down, up = network.down[1].blocks[0], network.up[1].blocks[-1]
    assert isinstance(down, ResidualBlock)
    assert isinstance(up, ResidualBlock)
    x = noise(2, 32, 8, 8).float()
    halved = FilterDown([1, 3, 3, 1])(x)
    expected = down.shortcut(halved) if projected else halved
    assert projected == isinstance(down.shortcut, torch.nn.Conv2d)
    assert torch.equal(down(x, torch.randn(2, 128)), expected)
    assert up(noise(2, 64, 4, 4).float(), torch.randn(2, 128)).shape == (2, 64, 8, 8)


def test_where_attention_is():
    def attending(network, part):
        return [sum(isinstance(m, SelfAttention) for m in step.modules()) for step in getattr(network, part)]

    every = tiny(attention_resolutions=[8], blocks_per_level=2)
    single = tiny(attention_resolutions=[8], blocks_per_level=2, single_up_attention=True)
    assert attending(every, "down") == attending(single, "down") == [1, 1, 0, 0, 0]
    assert attending(every, "up") == [0, 0, 0, 1, 1, 1]
    assert attending(single, "up") == [0, 0, 0, 0, 0, 1]


def test_heads_by_number_or_by_width():
    found = {}
    for option in ({"heads": 4}, {"head_channels": 16}):
        network = tiny(attention_resolutions=[8], **option)
        found[next(iter(option))] = [m.heads for m in network.modules() if isinstance(m, SelfAttention)]
    assert found == {"heads": [4, 4, 4, 4], "head_channels": [2, 4, 2, 2]}
    assert all(m.heads == 1 for m in tiny().modules() if isinstance(m, SelfAttention))


def test_heads_are_apart():
    """Each head by itself, from the definition of attention."""
    block = SelfAttention(32, heads=4).double()
    randomize(block)
    x = noise(1, 32, 3, 3)
    pixels = functional.group_norm(x, 8, block.norm.weight, block.norm.bias, 1e-6).flatten(2)[0].T
    query, key, value = (
        pixels @ w.T + b for w, b in zip(block.qkv.weight.chunk(3), block.qkv.bias.chunk(3), strict=True)
    )
    heads = [slice(8 * head, 8 * head + 8) for head in range(4)]
    mixed = [torch.softmax(query[:, h] @ key[:, h].T / math.sqrt(8), dim=1) @ value[:, h] for h in heads]
    expected = x + block.project(torch.cat(mixed, dim=1)).T.reshape(1, 32, 3, 3)
    torch.testing.assert_close(block(x, torch.empty(0)), expected)


@pytest.mark.parametrize(("features", "width"), [("sinusoidal", 32), ("cosine_first", 32), ("fourier", 64)])
def test_a_mapped_condition_joins_the_features(features, width):
    network = tiny(time_embedding=features, map_condition=True, condition=labelled()).eval()
    randomize(network)
    assert network.condition.table.weight.shape == (11, width)
    x, label = noise(2, 2, 8, 8).float(), torch.tensor([3, -1])
    rows = network.condition.table(torch.tensor([3, 10]))
    seen = []
    network.time.linear1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network(x, TIMES, {"label": label})
    torch.testing.assert_close(seen[0], network.time.features(TIMES) + rows)


OPTIONS = [
    {},
    {"dropout": 0.3, "condition": labelled()},
    {
        "progressive_input": True,
        "residual_resampling": True,
        "scale_shift": True,
        "skip_rescale": True,
        "resample_filter": [1, 3, 3, 1],
    },
]


@pytest.mark.parametrize("options", OPTIONS, ids=["default", "dropout", "all"])
def test_checkpointing_changes_memory_and_nothing_else(options):
    x = noise(2, 2, 8, 8).float()
    kept, results = [], []
    for checkpointing in (False, True):
        network = tiny(checkpointing=checkpointing, **options)
        randomize(network)
        count = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, count=count: count.append(t.numel()) or t, lambda t: t):
            torch.manual_seed(0)
            output = network(x, TIMES, {"label": torch.tensor([1, 2])})
        kept.append(sum(count))
        output.square().mean().backward()
        results.append([output.detach(), *(parameter.grad for parameter in network.parameters())])
    assert kept[1] < 0.5 * kept[0]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))
