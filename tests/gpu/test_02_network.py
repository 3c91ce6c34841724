"""The U-Net computes on a GPU what it computes on a CPU."""

import pytest
import torch
from gpu_helpers import Outcome, unet
from network_helpers import images, preset, randomize
from torch import nn

from langevin.features.extractor import _without_tf32

BATCH = 2


def record(record_property, what, values):
    for name, value in values.items():
        record_property(f"{what}: {name}", value)


def test_float32_is_that_of_the_cpu(device, rehearsal, record_property):
    network, size = unet(rehearsal)
    x = images(BATCH, size)
    expected = Outcome(network, "cpu", x)
    assert expected.output.std() > 0.1
    with _without_tf32():
        errors = Outcome(network, device, x).errors(expected)
    record(record_property, "float32", errors)
    tf32 = Outcome(network, device, x)
    record(record_property, "torch's default", tf32.errors(expected))
    distances = tf32.distances(expected)
    record(record_property, "torch's default, L2", distances)
    assert max(errors.values()) < 1e-4, errors
    assert max(distances.values()) < 1e-2, distances


def test_bfloat16_is_close_to_float32(device, rehearsal, record_property):
    network, size = unet(rehearsal)
    x = images(BATCH, size)
    expected = Outcome(network, "cpu", x)
    distances = Outcome(network, device, x, bf16=True).distances(expected)
    record(record_property, "bfloat16, L2", distances)
    assert distances["output"] < 2e-2
    assert distances["gradient of all weights"] < 5e-2


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
def test_channels_stay_innermost(device, rehearsal, record_property, bf16):
    """Every convolution is given its input as the tensor cores want it, so that nothing is transposed in between."""
    network, size = unet(rehearsal)
    network.to(device)
    kept = {}

    def look(name):
        def hook(module, arguments):
            kept[name] = arguments[0].is_contiguous(memory_format=torch.channels_last)

        return hook

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels > 4:
            module.register_forward_pre_hook(look(name))
    x = images(BATCH, size).to(device)
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        network(x, torch.linspace(1, 900, BATCH).to(device), None)
    record_property("convolutions", len(kept))
    record_property("channels innermost", sum(kept.values()))
    lost = [name for name, is_kept in kept.items() if not is_kept]
    assert len(kept) > 10
    assert not lost, f"{len(lost)} of {len(kept)}, the first: {lost[:5]}"


def test_edm2_trains_in_bfloat16(device):
    """On a GPU autocast makes float32 of what is upsampled, and EDM2's sums ask for two tensors of one type."""
    cls, own = preset("edm2_xs")
    small = {"channels": 32, "channel_multipliers": [1, 2], "blocks_per_level": 1, "attention_resolutions": [4]}
    network = cls(in_channels=3, out_channels=3, image_size=8, **own | small | {"head_channels": 16})
    randomize(network)
    network.to(device)
    with torch.autocast(device, torch.bfloat16):
        output = network(images(BATCH, 8).to(device), torch.tensor([-1.0, 1.0], device=device))
    assert output.dtype == torch.bfloat16
    output.float().square().mean().backward()
    assert all(0 < weight.grad.norm() < float("inf") for weight in network.parameters())
