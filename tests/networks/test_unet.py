import copy

import pytest
import torch
from network_helpers import TINY, preset, randomize, refused, tiny

from langevin.errors import OptionError
from langevin.networks.unet import UNet

INSIDE = {"residual_resampling": True}


@pytest.mark.parametrize("channels", [32, 64, 96, 128])
def test_a_narrow_network_sees_the_noise_level(channels):
    """As long as no group of a normalization is one channel, which would take what the embedding adds away."""
    network = tiny(channels=channels, channel_multipliers=[1], attention_resolutions=[])
    randomize(network)
    x = torch.randn(1, 2, 8, 8).repeat(2, 1, 1, 1)
    output = network(x, torch.tensor([1.0, 900.0]))
    assert (output[0] - output[1]).abs().max() > 0.01 * output.abs().max()


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (3, 64)])
def test_small_preset_serves_its_sizes(channels, size):
    cls, own = preset("unet_small")
    network = cls(in_channels=channels, out_channels=2 * channels, image_size=size, condition=None, **own)
    randomize(network)
    output = network(torch.randn(2, channels, size, size), torch.tensor([0.5, 20.0]))
    assert output.shape == (2, 2 * channels, size, size)
    assert output.isfinite().all()
    assert output.std() > 0.01


def test_starts_at_zero_with_branches_that_do_nothing():
    network = tiny()
    x, times = torch.randn(2, 2, 8, 8), torch.tensor([1.0, 2.0])
    assert (network(x, times) == 0).all()
    features = torch.randn(2, 64, 4, 4)
    assert torch.equal(network.middle(features, torch.randn(2, 128)), features)


def test_weights_start_with_the_variance_of_ddpm():
    """2 / (fan in + fan out), biases 0; query, key and value each as a matrix of its own."""
    network = tiny(channels=64)
    block, attention = network.middle.blocks[:2]
    pieces = [(block.conv1.weight, 2 / (9 * 128 + 9 * 128)), (block.embed.weight, 2 / (256 + 128))]
    pieces += [(part, 2 / (128 + 128)) for part in attention.qkv.weight.chunk(3)]
    for weight, variance in pieces:
        assert weight.var().item() == pytest.approx(variance, rel=0.05)
    biases = [value for name, value in network.named_parameters() if name.endswith("bias")]
    assert len(biases) > 20
    assert not any(bias.any() for bias in biases)


def test_samples_do_not_mix():
    network = tiny()
    randomize(network)
    x, times = torch.randn(3, 2, 8, 8), torch.tensor([0.0, 0.25, 900.0])
    together = network(x, times)
    apart = torch.cat([network(x[i : i + 1], times[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_dropout_is_for_training():
    network = tiny(dropout=0.5)
    randomize(network)
    x, times = torch.randn(2, 2, 8, 8), torch.tensor([1.0, 2.0])
    assert not torch.equal(network.train()(x, times), network(x, times))
    assert torch.equal(network.eval()(x, times), network(x, times))


def test_memory_format_stays_inside():
    network = tiny()
    randomize(network)
    x, times = torch.randn(2, 2, 8, 8), torch.tensor([1.0, 2.0])
    inner = []
    network.middle.register_forward_hook(lambda module, inputs, output: inner.append(output))
    output = network(x, times)
    assert inner[0].is_contiguous(memory_format=torch.channels_last)
    assert output.is_contiguous()
    assert torch.equal(output, network(x.to(memory_format=torch.channels_last), times))
    restored = tiny()
    restored.load_state_dict(copy.deepcopy(network.state_dict()))
    assert restored.first.weight.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_autocast_is_close_to_float32():
    network = tiny()
    randomize(network)
    x, times = torch.randn(2, 2, 8, 8), torch.tensor([3.0, 999.0])
    expected = network(x, times)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(x, times)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, rtol=0.1, atol=0.1 * expected.std().item())
    output.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_runs_in_the_type_of_its_weights():
    network = tiny().double()
    randomize(network)
    output = network(torch.randn(2, 2, 8, 8, dtype=torch.float64), torch.tensor([1.0, 2.0]))
    assert output.dtype == torch.float64


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"image_size": 9}, "channel_multipliers", ["2 levels", "image_size=9", "divisible by 2"]),
        ({"image_size": 0}, "channel_multipliers", ["0"]),
        ({"channels": 48}, "channels", ["48", "multiple of 32"]),
        ({"channels": 0}, "channels", ["0", "multiple of 32"]),
        ({"channels": 64, "norm_groups": 24}, "channels", ["is 64", "multiple of norm_groups (24) and of 4"]),
        ({"channel_multipliers": []}, "channel_multipliers", ["[]", "positive"]),
        ({"channel_multipliers": [1, 0]}, "channel_multipliers", ["[1, 0]", "positive"]),
        ({"head_channels": 48}, "head_channels", ["48", "[64]"]),
        ({"head_channels": 0}, "head_channels", ["0"]),
        ({"head_channels": 64, "attention_resolutions": [8]}, "head_channels", ["64", "[32, 64]"]),
        ({"heads": 3}, "heads", ["3", "[64]"]),
        ({"heads": 0}, "heads", ["0", "divisor"]),
        ({"heads": 2, "head_channels": 32}, "heads", ["2", "32", "null"]),
        ({"resample_filter": [1, 2, 1], **INSIDE}, "resample_filter", ["[1, 2, 1]", "even", "[1, 3, 3, 1]"]),
        ({"resample_filter": [], **INSIDE}, "resample_filter", ["[]", "even"]),
        ({"resample_filter": [1, -1], **INSIDE}, "resample_filter", ["[1, -1]", "positive sum"]),
        ({"resample_filter": [1, 3, 3, 1]}, "resample_filter", ["[1, 3, 3, 1]", "residual_resampling"]),
        ({"resample_projection": True}, "resample_projection", ["true", "residual_resampling"]),
        ({"symmetric_padding": True, **INSIDE}, "symmetric_padding", ["true", "residual_resampling"]),
    ],
)
def test_a_mistake_is_named_with_value_and_what_is_allowed(changes, field, words):
    with pytest.raises(OptionError) as error:
        tiny(**changes)
    ((found, message),) = error.value.found
    assert found == field
    assert all(word in message for word in words)
    assert str(error.value) == f"{field} {message}"


def test_all_mistakes_are_found_at_once():
    changes = {"image_size": 10, "channels": 50, "channel_multipliers": [1, 2, 2], "head_channels": 64, "heads": 1}
    with pytest.raises(OptionError) as error:
        tiny(**changes, resample_projection=True)
    fields = [field for field, _ in error.value.found]
    assert fields == ["channels", "channel_multipliers", "heads", "resample_projection"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_resolutions": []},
        {"attention_resolutions": [16, 8], "head_channels": 16},
        {"resample_filter": [1.0, 1.0]},
        {"resample_filter": [1, 3, 3, 1], "progressive_input": True},
        {"resample_filter": [1, 3, 3, 1], "resample_projection": True, **INSIDE},
    ],
)
def test_no_mistake_no_report(changes):
    assert refused(UNet, in_channels=2, out_channels=2, image_size=8, condition=None, **TINY | changes) == []
