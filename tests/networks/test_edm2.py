"""EDM2's U-Net, and its layers: against NVIDIA's own code (see peers.md), and against what they promise."""

import copy
import math

import pytest
import torch
from helpers.commands import composed
from helpers.saved import save_untrained
from network_helpers import assert_same, images, labelled, refused
from torch import nn

from langevin.adapters.lora import LoRA
from langevin.assembly.check import mistakes_in
from langevin.assembly.components import make_model
from langevin.assembly.init_run import find_initial, start_from
from langevin.assembly.saved import load_model
from langevin.errors import UserError
from langevin.magnitudes import MPFourier, MPLayer, force_magnitudes, mp_layers, unit_magnitude
from langevin.networks.blocks.magnitude import MPBlock, mp_cat, mp_silu, mp_sum
from langevin.networks.edm2 import EDM2UNet
from langevin.spec import DataSpec

RECIPE = (
    *("data=digits", "model=edm2_xs", "formulation=edm", "metrics=[]"),
    *("model.channels=16", "model.channel_multipliers=[1,1]", "model.blocks_per_level=1", "model.head_channels=16"),
)

OPTIONS = {
    "channels": 16,
    "channel_multipliers": [1, 2, 3],
    "blocks_per_level": 2,
    "attention_resolutions": [8],
    "head_channels": 16,
    "dropout": 0.0,
}
CLASSES = 10
LABELS = torch.tensor([3, 0])
LOG_SIGMAS = torch.tensor([-0.9, 0.4])
LAYERS = {
    "gain": "emb_gain",
    "conv1.weight": "conv_res0.weight",
    "embed.weight": "emb_linear.weight",
    "conv2.weight": "conv_res1.weight",
    "shortcut.weight": "conv_skip.weight",
    "qkv.weight": "attn_qkv.weight",
    "project.weight": "attn_proj.weight",
}


def ours(condition=None, **options):
    facts = {"in_channels": 3, "out_channels": 3, "image_size": 16, "condition": condition}
    return EDM2UNet(**(facts | OPTIONS | options))


def converted(theirs, mine):
    """The peer's numbers under our names."""
    found = {
        "fourier.frequencies": theirs.emb_fourier.freqs,
        "fourier.phases": theirs.emb_fourier.phases,
        "time.weight": theirs.emb_noise.weight,
        "last.weight": theirs.out_conv.weight,
        "gain": theirs.out_gain.reshape(1),
    }
    first, *down = theirs.enc.values()
    found["first.weight"] = first.weight
    for way, blocks in (("down", down), ("up", theirs.dec.values())):
        for index, block in enumerate(blocks):
            weights = dict(block.named_parameters())
            for name, their_name in LAYERS.items():
                if their_name in weights:
                    found[f"{way}.{index}.{name}"] = weights.pop(their_name)
            assert not weights
            assert getattr(mine, way)[index].gain.shape == (1,)
    if theirs.emb_label is not None:
        found["condition.table.weight"] = torch.cat((theirs.emb_label.weight.T, torch.zeros(1, 48)))
    own = mine.state_dict()
    return {name: value.detach().reshape(own[name].shape) for name, value in found.items()}


def both(peer, classes=None):
    theirs = peer("edm2", "training.networks_edm2").UNet(
        img_resolution=16,
        img_channels=3,
        label_dim=classes or 0,
        model_channels=16,
        channel_mult=[1, 2, 3],
        num_blocks=2,
        attn_resolutions=[8],
        channels_per_head=16,
    )
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "gain" in name:
                weight.fill_(0.7)
        if classes is not None:  # every row and every column of signs has magnitude 1
            theirs.emb_label.weight.sign_()
    mine = ours(None if classes is None else labelled(classes))
    mine.load_state_dict(converted(theirs, mine), strict=True)
    return mine, theirs


def one_hot(labels):
    return None if labels is None else nn.functional.one_hot(labels, CLASSES).float()


@pytest.mark.parametrize("labels", [None, LABELS], ids=["without labels", "with labels"])
def test_equals_edm2(peer, labels):
    mine, theirs = both(peer, None if labels is None else CLASSES)
    cond = None if labels is None else {"label": labels}
    assert_same(
        lambda x: mine.eval()(x, LOG_SIGMAS, cond),
        lambda x: theirs.eval()(x, LOG_SIGMAS, one_hot(labels)),
        images(2, 16),
    )


def test_training_equals_edm2s(peer):
    """Their training forward sets the magnitudes of the weights: the same output, weights and gradients."""
    mine, theirs = both(peer, CLASSES)
    table = mine.condition.table.weight.detach().clone()
    force_magnitudes(mp_layers(mine.train()))
    assert_same(
        lambda x: mine(x, LOG_SIGMAS, {"label": LABELS}),
        lambda x: theirs.train()(x, LOG_SIGMAS, one_hot(LABELS)),
        images(2, 16),
    )
    for name, expected in converted(theirs, mine).items():
        if "table" not in name:
            torch.testing.assert_close(mine.state_dict()[name], expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(mine.condition.table.weight, table)


def test_the_uncertainty_equals_edm2s(peer):
    theirs = peer("edm2", "training.networks_edm2").Precond(16, 3, 0, model_channels=16, channels_per_head=16).eval()
    fourier, linear = MPFourier(128), MPLayer(128, 1)
    fourier.load_state_dict({"frequencies": theirs.logvar_fourier.freqs, "phases": theirs.logvar_fourier.phases})
    linear.load_state_dict(theirs.logvar_linear.state_dict())
    sigma = torch.tensor([0.01, 0.5, 20.0])
    _, expected = theirs(torch.zeros(3, 3, 16, 16), sigma, return_logvar=True)
    torch.testing.assert_close(linear(fourier(sigma.log() / 4)), expected.flatten()[:, None], rtol=1e-5, atol=1e-5)


def magnitude(x):
    return x.square().mean().sqrt().item()


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_sums_and_activations_keep_the_magnitude_of_noise():
    a, b = noise(4, 64, 16, 16), noise(4, 192, 16, 16, seed=1)
    for result in (mp_silu(a), mp_sum(a, b[:, :64], 0.3), mp_sum(a, b[:, :64], 0.5), mp_cat(a, b)):
        assert magnitude(result) == pytest.approx(1, rel=0.01)
    both_parts = mp_cat(a, b)
    assert both_parts[:, :64].square().sum() == pytest.approx(both_parts[:, 64:].square().sum().item(), rel=0.02)
    assert magnitude(MPFourier(10_000)(torch.tensor([0.3]))) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("encodes", [True, False], ids=["encoder", "decoder"])
@pytest.mark.parametrize(("heads", "expected"), [(0, 1), (2, 0.7**2 / (0.7**2 + 0.3**2))])
def test_a_block_keeps_the_variance_of_white_noise(encodes, heads, expected):
    """To 5 %, where no border of zeros reaches; but attention finds the mean of a thousand pixels, which is nothing."""
    torch.manual_seed(0)
    block = MPBlock(64, 128, 32, encodes=encodes, heads=heads, dropout=0.0)
    with torch.no_grad():
        found = block(noise(4, 64, 32, 32), noise(4, 32))
    assert found[..., 4:-4, 4:-4].var().item() == pytest.approx(expected, rel=0.05)


def test_magnitudes_are_forced_where_weights_are_trained():
    layers = [MPLayer(6, 4, 3), MPLayer(6, 4)]
    for layer in layers:
        nn.init.normal_(layer.weight, 1, 3)
    layers[1].weight.requires_grad_(False)
    before, x = copy.deepcopy(layers), noise(2, 6, 5, 5)
    force_magnitudes(layers)
    rows = layers[0].weight.detach().flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(rows, torch.ones(4), rtol=1e-3, atol=0)
    assert torch.equal(layers[1].weight, before[1].weight)
    torch.testing.assert_close(layers[0](x), before[0](x), rtol=2e-4, atol=2e-4)
    # The gradient turns weights alone.
    layers[0](x).square().sum().backward()
    weight, gradient = (part.flatten(1) for part in (layers[0].weight.detach(), layers[0].weight.grad))
    cosine = nn.functional.cosine_similarity(weight, gradient)
    assert cosine.abs().max() < 1e-3
    assert gradient.norm() > 1


def test_a_weight_of_nothing_has_no_magnitude_and_a_gradient():
    x = torch.zeros(2, 3, requires_grad=True)
    unit_magnitude(x).sum().backward()
    assert torch.equal(x.grad, torch.full((2, 3), 1e4))


def test_the_condition_counts_by_direction():
    network = ours(labelled()).eval()
    nn.init.constant_(network.gain, 1.0)
    for block in (*network.down, *network.up):
        nn.init.constant_(block.gain, 0.5)
    x, cond = images(2, 16), {"label": LABELS}
    with torch.no_grad():
        first = network(x, LOG_SIGMAS, cond)
        assert (network(x, LOG_SIGMAS, {"label": LABELS.flip(0)}) - first).abs().max() > 1e-2
        network.condition.table.weight.mul_(3)
        torch.testing.assert_close(network(x, LOG_SIGMAS, cond), first, rtol=1e-3, atol=1e-3)
    assert math.isclose(network.first.weight.shape[1], 3 + 1)


def test_what_does_not_fit_is_refused():
    facts = {"in_channels": 3, "out_channels": 3, "image_size": 16}
    assert refused(EDM2UNet, **facts, **OPTIONS | {"channels": 6, "channel_multipliers": [1] * 6}) == [
        ("channels", "is 6; allowed: a positive multiple of 4"),
        (
            "channel_multipliers",
            "has 6 levels, and image_size=16 is not divisible by 32; allowed: fewer levels, or another image size",
        ),
    ]
    ((field, text),) = refused(EDM2UNet, **facts, **OPTIONS | {"head_channels": 64})
    assert field == "head_channels"
    assert text == "is 64; allowed: a divisor of each of the widths [32, 48], or null for a single head"


def test_what_does_not_suit_it_is_refused():
    cfg, _ = composed("train", *RECIPE, "conditions=[class_label,augmentation]", "data.flip=false")
    (mistake,) = mistakes_in(cfg)
    assert mistake.path == "conditions"
    assert mistake.message.startswith("transform images, of whose labels EDM2UNet would keep the direction alone")
    adapter = LoRA(4, 4.0, 0.0, "all", text_encoder=False)
    with pytest.raises(UserError, match="does not suit EDM2UNet, whose weights count by their direction alone"):
        adapter.check(ours(labelled()))


def test_new_input_channels_start_at_zero(tmp_path):
    """Behind the channel of ones, of whose weights the other network's are kept."""
    spec = DataSpec.of_images(channels=1, image_size=8, num_classes=10)
    cfg, _ = composed("train", *RECIPE, "conditions=[class_label]")
    place = save_untrained(tmp_path / "base.ckpt", cfg, spec)
    old = load_model(place).denoiser.network.first.weight
    cfg, _ = composed(
        "train", *RECIPE, "conditions=[class_label,low_res]", "conditions.low_res.size=4", f"init.checkpoint={place}"
    )
    assert find_initial(cfg)[1] == []
    network = make_model(cfg, spec).network
    said = start_from(cfg, [network], spec)
    assert "of first.weight the new input channels start at zero), 0 new, 0 unused" in said
    new = network.first.weight
    assert old.shape[1:2] == (2,)
    assert torch.equal(new[:, :2], old)
    assert not new[:, 2:].any()
    assert new.shape[1] > 2
