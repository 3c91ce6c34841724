import copy

import pytest
import torch
from diffusers import UNet2DModel
from diffusers_weights import convert
from network_helpers import TINY, preset, randomize, tiny

from langevin.errors import UserError
from langevin.networks.unet import UNet

DDPM_CIFAR10 = {
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (128, 256, 256, 256),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "act_fn": "silu",
    "time_embedding_type": "positional",
    "center_input_sample": False,
    "mid_block_scale_factor": 1,
    "attention_head_dim": None,
}
"""google/ddpm-cifar10-32."""


def run(network, x, times):
    """Give the output and the gradient of a fixed mixture of it with respect to the input."""
    x = x.clone().requires_grad_()
    output = network(x, times)
    output = output if isinstance(output, torch.Tensor) else output.sample
    mixture = torch.randn(output.shape, generator=torch.Generator().manual_seed(7)).to(output)
    (gradient,) = torch.autograd.grad((output * mixture).sum(), x)
    return output.detach(), gradient


def assert_equals_diffusers(ours, theirs):
    randomize(theirs)
    ours.load_state_dict(convert(theirs), strict=True)
    size = theirs.config.sample_size
    x = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    times = torch.tensor([0, 1, 517, 999])
    expected, expected_gradient = run(theirs.eval(), x, times)
    output, gradient = run(ours.eval(), x, times.float())
    assert expected.std() > 0.1
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


def test_preset_equals_diffusers_ddpm():
    """Diffusers runs in the usual memory format, ours with the channels innermost: that changes nothing either."""
    cls, own = preset("unet")
    ours = cls(in_channels=3, out_channels=3, image_size=32, condition=None, **own)
    assert_equals_diffusers(ours, UNet2DModel(**DDPM_CIFAR10))


def test_several_heads_equal_diffusers():
    theirs = UNet2DModel(
        **DDPM_CIFAR10
        | {
            "sample_size": 8,
            "block_out_channels": (128, 256),
            "layers_per_block": 1,
            "down_block_types": ("AttnDownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D"),
            "attention_head_dim": 16,
        }
    )
    ours = tiny(in_channels=3, out_channels=3, channels=128, attention_resolutions=[8, 4], head_channels=16)
    assert_equals_diffusers(ours, theirs)


@pytest.mark.parametrize("channels", [32, 64, 96, 128])
def test_a_narrow_network_sees_the_noise_level(channels):
    """As long as no group of a normalization is one channel, which would take what the embedding adds away."""
    network = tiny(channels=channels, channel_multipliers=[1], attention_resolutions=[])
    randomize(network)
    x = torch.randn(1, 2, 8, 8).repeat(2, 1, 1, 1)
    output = network(x, torch.tensor([1.0, 900.0]))
    assert (output[0] - output[1]).abs().max() > 0.01 * output.abs().max()


def test_parameter_counts():
    counts = {}
    for name in ("unet_small", "unet"):
        cls, own = preset(name)
        network = cls(in_channels=3, out_channels=3, image_size=32, condition=None, **own)
        counts[name] = sum(parameter.numel() for parameter in network.parameters())
    assert counts["unet"] == 35_746_307
    assert counts["unet_small"] < 5_000_000


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
        ({"image_size": 9}, "channel_multipliers", ["[1, 2]", "9", "divisible by 2"]),
        ({"image_size": 0}, "channel_multipliers", ["0"]),
        ({"channels": 48}, "channels", ["48", "multiple of 32"]),
        ({"channels": 0}, "channels", ["0", "multiple of 32"]),
        ({"channel_multipliers": []}, "channel_multipliers", ["[]", "positive"]),
        ({"channel_multipliers": [1, 0]}, "channel_multipliers", ["[1, 0]", "positive"]),
        ({"blocks_per_level": 0}, "blocks_per_level", ["0", "at least 1"]),
        ({"head_channels": 48}, "head_channels", ["48", "[64]"]),
        ({"head_channels": 0}, "head_channels", ["0"]),
        ({"head_channels": 64, "attention_resolutions": [8]}, "head_channels", ["64", "[32, 64]"]),
        ({"dropout": 1.0}, "dropout", ["1.0", "below 1"]),
        ({"dropout": -0.1}, "dropout", ["-0.1", "from 0"]),
    ],
)
def test_a_mistake_is_named_with_value_and_what_is_allowed(changes, field, words):
    ((found, message),) = UNet.check(**({"image_size": 8} | TINY | changes))
    assert found == field
    assert all(word in message for word in words)
    with pytest.raises(UserError) as error:
        tiny(**changes)
    assert str(error.value) == f"UNet.{field}: {message}"


def test_all_mistakes_are_found_at_once():
    mistakes = UNet.check(
        image_size=10,
        channels=50,
        channel_multipliers=[1, 2, 2],
        blocks_per_level=0,
        attention_resolutions=[5],
        head_channels=64,
        dropout=2.0,
    )
    fields = [field for field, _ in mistakes]
    assert fields == ["channels", "blocks_per_level", "dropout", "channel_multipliers", "head_channels"]


def test_no_mistake_no_report():
    assert UNet.check(image_size=8, **TINY) == []
    assert UNet.check(image_size=8, **TINY | {"attention_resolutions": []}) == []
    assert UNet.check(image_size=8, **TINY | {"attention_resolutions": [16, 8], "head_channels": 16}) == []
