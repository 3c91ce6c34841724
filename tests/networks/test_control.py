"""The adapter beside a frozen U-Net: nothing at the start, its gradient, and its scale.

On the same weights it is diffusers' ControlNet: see interop/test_controlnet.py.
"""

import functools

import pytest
import torch

from langevin.conditions.class_label import ClassLabel
from langevin.conditions.condition import Several
from langevin.conditions.hint import COLUMN, SCALE, Hint
from langevin.errors import OptionError
from langevin.networks.unet import UNet
from langevin.taps import tapped

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


def test_only_features_that_the_adapter_changes_may_be_looked_at():
    base, controlled = pair()
    assert controlled.default_tap in controlled.taps
    assert set(base.taps) - set(controlled.taps) == {*(f"down_{step}" for step in (1, 2, 3)), "middle"}
    x, times, _, hinted = inputs()
    with tapped(controlled, controlled.taps) as features:
        controlled(x, times, hinted)
    for name, maps in features.items():
        gradients = torch.autograd.grad(
            maps.square().mean(),
            [layer.weight for layer in controlled.control.zeros],
            retain_graph=True,
            allow_unused=True,
        )
        assert any(gradient is not None and gradient.any() for gradient in gradients), name


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


@pytest.mark.parametrize(
    ("control", "widths", "words"),
    [
        (True, [], r"control_channels is \[\]; allowed: one or more positive integers"),
        (False, [16, 32], r"control_channels is \[16, 32\], with no adapter; allowed: \[16\], or control=true"),
    ],
)
def test_widths_of_the_stem_that_do_not_fit(control, widths, words):
    with pytest.raises(OptionError, match=words):
        unet(control, control_channels=widths)


def test_hints_in_colour_are_of_a_side_that_the_stem_brings_down():
    made = Hint(kind="edges", threshold=None, dropout=0.0, image_size=SIDE, channels=3)
    size = {"in_channels": C, "out_channels": C, "image_size": SIDE, "condition": lambda dim: made}
    network = UNet(**size, control=True, control_channels=[4, 6, 8], **SMALL)
    randomize(network, 0)
    x, times, *_ = inputs()
    hints = torch.rand(B, 3, 4 * SIDE, 4 * SIDE, generator=torch.Generator().manual_seed(2))
    first = network(x, times, {COLUMN: hints})
    assert (network(x, times, {COLUMN: hints.flip(1)}) - first).abs().mean() > 1e-3, "colours matter"
    computed = made.derive(torch.rand(B, C, 4 * SIDE, 4 * SIDE), None)[COLUMN]
    assert computed.shape == hints.shape
