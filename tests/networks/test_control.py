"""The adapter beside a frozen U-Net: nothing at the start, diffusers' ControlNet on the same weights, and its scale."""

import functools

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from langevin.conditions.class_label import ClassLabel
from langevin.conditions.condition import Several
from langevin.conditions.hint import COLUMN, SCALE, Hint
from langevin.errors import OptionError
from langevin.interop.diffusers import to_diffusers
from langevin.networks.unet import UNet

B, C, SIDE = 2, 3, 8
SMALL = {
    "channels": 32,
    "channel_multipliers": [1, 2],
    "blocks_per_level": 1,
    "attention_resolutions": [4],
    "norm_groups": 8,
    "dropout": 0.0,
}


def condition(dim, hint):
    label = ClassLabel(10, dropout=0.1, dim=dim)
    if not hint:
        return label
    return Several({"label": label, "hint": Hint(kind="edges", threshold=None, dropout=0.0, image_size=SIDE)})


def unet(control, **options):
    made = functools.partial(condition, hint=control)
    size = {"in_channels": C, "out_channels": C, "image_size": SIDE}
    return UNet(**size, condition=made, control=control, **{**SMALL, **options})


def randomize(module, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))


def pair(**options):
    """A network with random weights, and one that is controlled and was started from it."""
    base, controlled = unet(False, **options), unet(True, **options)
    randomize(base, 0)
    taken = {name.replace("condition.", "condition.parts.0."): each for name, each in base.state_dict().items()}
    left, surplus = controlled.load_state_dict(taken, strict=False)
    assert surplus == []
    assert all(name.startswith("control.") for name in left)
    controlled.started(taken)
    return base, controlled


def inputs():
    generator = torch.Generator().manual_seed(1)
    x, hint = torch.randn(B, C, SIDE, SIDE, generator=generator), torch.rand(B, 1, SIDE, SIDE, generator=generator)
    return x, torch.tensor([3.0, 500.0]), {"label": torch.arange(B)}, {"label": torch.arange(B), COLUMN: hint}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cross_attention": True, "scale_shift": True},
        {"cross_attention": True, "transformer_depth": 2, "heads": 2},
        {
            "map_condition": True,
            "progressive_input": True,
            "skip_rescale": True,
            "residual_resampling": True,
            "time_embedding": "fourier",
            "checkpointing": True,
        },
    ],
)
def test_nothing_is_added_at_the_start_and_at_scale_zero(options):
    base, controlled = pair(**options)
    x, times, cond, hinted = inputs()
    wanted = base(x, times, cond)
    assert wanted.abs().mean() > 0.01
    assert torch.equal(controlled(x, times, hinted), wanted)
    randomize(controlled.control, 2)
    changed = controlled(x, times, hinted)
    assert (changed - wanted).abs().mean() > 0.01
    assert torch.equal(controlled(x, times, {**hinted, SCALE: torch.zeros(B)}), wanted)
    one = controlled(x, times, {**hinted, SCALE: torch.tensor([1.0, 0.0])})
    assert torch.equal(one[0], changed[0])
    assert torch.equal(one[1], wanted[1])
    other = controlled(x, times, {**hinted, COLUMN: 1 - hinted[COLUMN]})
    assert not torch.allclose(other, changed)


def test_the_gradient_goes_to_the_adapter_alone_and_first_to_its_zeros():
    _, controlled = pair()
    x, times, _, hinted = inputs()
    controlled(x, times, hinted).square().mean().backward()
    for name, weight in controlled.named_parameters():
        assert (weight.grad is not None) == name.startswith("control."), name
    assert all(layer.weight.grad.any() for layer in controlled.control.zeros)


def test_an_adapter_that_was_taken_is_no_copy():
    _, trained = pair()
    randomize(trained.control, 2)
    again = unet(True)
    again.load_state_dict(trained.state_dict())
    again.started(trained.state_dict())
    assert all(torch.equal(values, again.state_dict()[name]) for name, values in trained.state_dict().items())


def test_it_needs_images_and_no_dropout():
    size = {"in_channels": C, "out_channels": C, "image_size": SIDE}
    with pytest.raises(OptionError, match="control is true, but no condition gives images to control by"):
        UNet(**size, control=True, **SMALL)
    with pytest.raises(OptionError, match=r"dropout is 0\.1 beside control; allowed: 0"):
        unet(True, dropout=0.1)


def without(names, *beginnings):
    return {name: each for name, each in names.items() if not name.startswith(beginnings)}


def their_names(state):
    """A network's weights as diffusers names them, whose middle has one residual block."""
    named = to_diffusers(
        {name.replace("parts.0.", ""): each for name, each in state.items()}, {**SMALL, "attention_resolutions": []}
    )
    return without(named, "mid_block.attentions", "mid_block.resnets.1")


def test_it_is_diffusers_controlnet_on_the_same_weights():
    """In its middle, theirs has one residual block alone: our attention and second block there are the identity."""
    _, controlled = pair(attention_resolutions=[])
    randomize(controlled, 3)
    for network in (controlled, controlled.control):
        for layer in (network.middle.blocks[1].project, network.middle.blocks[2].conv2):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    of_both = {
        "in_channels": C,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "mid_block_type": "UNetMidBlock2D",
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "downsample_padding": 0,
        "norm_num_groups": 8,
        "norm_eps": 1e-6,
        "num_class_embeds": 11,
    }
    of_unet = {"sample_size": SIDE, "out_channels": C, "up_block_types": ("UpBlock2D", "UpBlock2D")}
    their_unet = UNet2DConditionModel(**of_both, **of_unet).eval()
    theirs = ControlNetModel(**of_both, conditioning_channels=1, conditioning_embedding_out_channels=(16,)).eval()

    state = without(controlled.state_dict(), "control.")
    their_unet.load_state_dict(their_names(state))
    branch = controlled.control.state_dict()
    last = len(controlled.control.zeros) - 1
    places = {"hint.0": "controlnet_cond_embedding.conv_in", "hint.2": "controlnet_cond_embedding.conv_out"}
    places |= {f"zeros.{index}": f"controlnet_down_blocks.{index}" for index in range(last)}
    places |= {f"zeros.{last}": "controlnet_mid_block"}
    added = {
        f"{place}.{kind}": branch[f"{name}.{kind}"] for name, place in places.items() for kind in ("weight", "bias")
    }
    copied = their_names({**without(state, "up."), **without(branch, "hint.", "zeros.")})
    theirs.load_state_dict({**without(copied, "conv_norm_out", "conv_out"), **added})

    x, times, _, hinted = inputs()
    found = {}
    for scale in (0.0, 0.5, 1.0):
        with torch.no_grad():
            label = {"class_labels": hinted["label"]}
            down, middle = theirs(x, times, None, hinted[COLUMN], scale, **label, return_dict=False)
            extra = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            wanted = their_unet(x, times, None, **label, **extra).sample
            found[scale] = controlled(x, times, {**hinted, SCALE: torch.full((B,), scale)})
        torch.testing.assert_close(found[scale], wanted, rtol=1e-5, atol=1e-5)
    assert (found[1.0] - found[0.0]).abs().mean() > 0.01
    assert (found[1.0] - found[0.5]).abs().mean() > 0.01
