"""EDM's networks read off the names and shapes of their weights alone."""

import pytest
import torch
from helpers.commands import composed
from omegaconf import OmegaConf
from peer_states import assert_fills, edm_state

from langevin.assembly.check import check_model
from langevin.errors import UserError
from langevin.interop.edm import read_edm

DDPMPP = {"network": "SongUNet", "size": 32, "channels": 128, "multipliers": (2, 2, 2), "blocks": 4, "augment": 9}
NCSNPP = DDPMPP | {"fourier": True, "residual": True, "taps": (1, 3, 3, 1)}
ADM = {
    "network": "DhariwalUNet",
    "size": 64,
    "channels": 192,
    "multipliers": (1, 2, 3, 4),
    "blocks": 3,
    "attends": (32, 16, 8),
    "classes": 1000,
}
SMALL = {"network": "SongUNet", "channels": 32, "multipliers": (1, 2), "attends": ()}

# Of EDM's train.py and README: its published networks, and then others.
NETWORKS = {
    "cifar10-uncond-vp": (DDPMPP, "ddpmpp", {}),
    "cifar10-cond-vp": (DDPMPP | {"classes": 10}, "ddpmpp", {}),
    "cifar10-cond-ve": (NCSNPP | {"classes": 10}, "ncsnpp", {}),
    "ffhq-64x64-uncond-vp": (
        DDPMPP | {"size": 64, "multipliers": (1, 2, 2, 2)},
        "ddpmpp",
        {"channel_multipliers": [1, 2, 2, 2]},
    ),
    "ffhq-64x64-uncond-ve": (
        NCSNPP | {"size": 64, "multipliers": (1, 2, 2, 2)},
        "ncsnpp",
        {"channel_multipliers": [1, 2, 2, 2]},
    ),
    "imagenet-64x64-cond-adm": (ADM, "adm_64", {}),
    "narrow": (SMALL, "ddpmpp", {"channels": 32, "attention_resolutions": [], "blocks_per_level": 1}),
    "fourier features alone": (SMALL | {"fourier": True}, "ddpmpp", {"time_embedding": "fourier"}),
    "one level": (SMALL | {"multipliers": (1,), "attends": (32,)}, "ddpmpp", {"attention_resolutions": [32]}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    """The published ones are our presets, of which they were made; and nothing is missing and nothing left over."""
    made, preset, differs = NETWORKS[name]
    imported = read_edm(edm_state(**made))
    cfg, choices = composed("train", *imported.overrides)
    check_model(cfg, ("objective", "weighting", "time_sampler", "sampler", "timestep_spacing"))
    assert imported[1:4] == (3, made.get("size", 32), made.get("classes"))
    assert (choices["formulation"], choices["parameterization"], choices["schedule"]) == ("edm", "edm", "edm")
    assert cfg.parameterization.sigma_data == 0.5
    own, _ = composed("train", f"model={preset}")
    if name.partition("-")[0] in ("cifar10", "ffhq", "imagenet"):
        assert OmegaConf.to_container(cfg.model) == OmegaConf.to_container(own.model) | differs
    else:
        assert OmegaConf.to_container(cfg.model).items() >= differs.items()
    assert_fills(cfg, imported)


@pytest.mark.parametrize(
    ("made", "conditions", "notes"),
    [
        (SMALL | {"augment": 9}, ["augmentation"], 0),
        (SMALL | {"augment": 9, "classes": 10}, ["class_label", "augmentation"], 0),
        (SMALL | {"augment": 6}, [], 1),  # some kind is left out: which one, the weights do not tell
        (ADM | {"augment": 9}, ["class_label"], 1),  # adds them before its layers of the time, and a label behind
    ],
)
def test_labels_of_augmentation(made, conditions, notes):
    imported = read_edm(edm_state(**made))
    cfg, _ = composed("train", *imported.overrides)
    assert (list(cfg.get("conditions") or ()), len(imported.notes)) == (conditions, notes)
    assert_fills(cfg, imported)


def filled(**made):
    """Its weights with values that tell every one from every other."""
    state = edm_state(**made)
    return {
        name: torch.full(tensor.shape, float(index)) if tensor.is_meta else tensor
        for index, (name, tensor) in enumerate(state.items())
    }


@pytest.mark.parametrize("made", [SMALL | {"residual": True, "blocks": 11, "size": 128}, ADM | {"channels": 64}])
def test_order_and_prefix_of_names_do_not_matter(made):
    """A file may hold its tensors by the alphabet: 128 before 64, block10 before block2."""
    state = filled(**made)
    expected = read_edm(state)
    for other in (
        dict(sorted(state.items())),
        {name.removeprefix("model."): tensor for name, tensor in state.items()},
    ):
        imported = read_edm(other)
        assert imported[:4] == expected[:4]
        weights, wanted = imported.weights({}), expected.weights({})
        assert weights.keys() == wanted.keys()
        for name, tensor in weights.items():
            assert torch.equal(tensor, wanted[name]), name


def test_half_precision_becomes_single():
    state = {name: tensor.half() for name, tensor in filled(**SMALL, taps=(1, 3, 3, 1)).items()}
    imported = read_edm(state)
    assert "model.resample_filter=[1.0, 3.0, 3.0, 1.0]" in imported.overrides
    assert {tensor.dtype for tensor in imported.weights({}).values()} == {torch.float32}


@pytest.mark.parametrize(
    ("made", "others", "message"),
    [
        (ADM, ["u"], "'u' is a buffer of iDDPMPrecond, .*; allowed: the weights of EDMPrecond"),
        (ADM | {"out_channels": 6}, [], "the network maps 3 channels to 6; allowed: as many to as many, .*"),
        (ADM | {"multipliers": (2, 2)}, [], "the first convolution is 384 wide, .* 192 features to 768; allowed: .*"),
        (SMALL | {"channels": 48}, [], "model_channels is 48; allowed: a multiple of 32, .*"),
        (ADM | {"channels": 32}, [], r"the levels that attend are \[64, 96, 128\] wide; allowed: multiples of 64, .*"),
        (SMALL, ["model.enc.16x16_aux_skip.weight"], "there is a step '16x16_aux_skip', .*; allowed: .*"),
        (SMALL, ["model.dec.32x32_aux_up.resample_filter"], "there is a step '32x32_aux_up', .*; allowed: .*"),
        (SMALL, ["model.enc.16x16_attn.weight"], "'enc.16x16_attn.weight' is unknown; allowed: .* EDM's .*"),
    ],
)
def test_weights_that_cannot_be(made, others, message):
    state = edm_state(**made) | {name: torch.zeros(1, 1, 2, 2) for name in others}
    with pytest.raises(UserError, match=f"^weights: {message}$"):
        read_edm(state)


@pytest.mark.parametrize("name", ["map_layer0.weight", "enc.32x32_conv.weight", "enc.16x16_block0.conv1.weight"])
def test_weights_of_something_else(name):
    state = edm_state(**SMALL)
    del state[f"model.{name}"]
    with pytest.raises(UserError, match=f"^weights: '{name}' is missing; allowed: all the weights of EDM's"):
        read_edm(state)
    with pytest.raises(UserError, match=r"^weights: 'map_layer0\.weight' is missing"):
        read_edm({"encoder.weight": torch.zeros(1)})
