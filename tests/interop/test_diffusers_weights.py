import json

import pytest
import torch
from diffusers import UNet2DModel
from networks.network_helpers import refused
from omegaconf import OmegaConf

from langevin.conditions.class_label import ClassLabel
from langevin.config.validate import CONF
from langevin.errors import UserError
from langevin.interop.diffusers import from_diffusers, to_diffusers, unet_2d_config, unet_of
from langevin.networks.unet import UNet

DDPM = OmegaConf.to_container(OmegaConf.load(CONF / "model" / "unet.yaml"))
del DDPM["_target_"]
SMALL = DDPM | {"channel_multipliers": [1, 2], "blocks_per_level": 1, "attention_resolutions": [8]}
ADM = SMALL | {"head_channels": 64, "scale_shift": True, "residual_resampling": True, "time_embedding": "cosine_first"}
NARROW = SMALL | {"channels": 64, "norm_groups": 16}

# Of the published config.json: google/ddpm-cifar10-32 and google/ddpm-celebahq-256.
SHARED = {
    "act_fn": "silu",
    "attention_head_dim": None,
    "center_input_sample": False,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "out_channels": 3,
    "time_embedding_type": "positional",
}
DOWN, ATTEND_DOWN, UP, ATTEND_UP = "DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"
PUBLISHED = {
    "cifar10-32": SHARED
    | {
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": (DOWN, ATTEND_DOWN, DOWN, DOWN),
        "up_block_types": (UP, UP, ATTEND_UP, UP),
    },
    "celebahq-256": SHARED
    | {
        "sample_size": 256,
        "block_out_channels": (128, 128, 256, 256, 512, 512),
        "down_block_types": (DOWN, DOWN, DOWN, DOWN, ATTEND_DOWN, DOWN),
        "up_block_types": (UP, ATTEND_UP, UP, UP, UP, UP),
    },
}


def ours(model, size, num_classes=None):
    condition = None if num_classes is None else lambda dim: ClassLabel(num_classes, 0.0, dim)
    return UNet(in_channels=3, out_channels=3, image_size=size, condition=condition, **model)


@pytest.mark.parametrize(("name", "multipliers"), [("cifar10-32", None), ("celebahq-256", [1, 1, 2, 2, 4, 4])])
def test_config_of_published_networks(name, multipliers):
    model = DDPM if multipliers is None else DDPM | {"channel_multipliers": multipliers}
    published = PUBLISHED[name]
    config = unet_2d_config(model, 3, 3, published["sample_size"])
    assert {key: config[key] for key in published} == published


def written(config):
    """A config as it comes out of a file."""
    return json.loads(json.dumps(config))


@pytest.mark.parametrize(("name", "multipliers"), [("cifar10-32", None), ("celebahq-256", [1, 1, 2, 2, 4, 4])])
def test_model_of_published_networks(name, multipliers):
    model = DDPM if multipliers is None else DDPM | {"channel_multipliers": multipliers}
    found, size = unet_of("config.json", written(PUBLISHED[name]))
    # Published without dropout; attention is at one resolution, and always in the middle.
    assert refused(UNet, in_channels=3, out_channels=3, image_size=size, condition=None, **found) == []
    assert found | {"dropout": 0.1, "checkpointing": False, "control_channels": [16]} == model


@pytest.mark.parametrize("model", [SMALL, ADM, SMALL | {"symmetric_padding": True, "norm_epsilon": 1e-5}, NARROW])
@pytest.mark.parametrize("channels", [1, 3])
def test_config_there_and_back(model, channels):
    found, size = unet_of("config.json", written(unet_2d_config(model, channels, channels, 16, 5)))
    assert (found | {"checkpointing": False, "control_channels": [16]}, size) == (model, 16)


@pytest.mark.parametrize(
    ("model", "num_classes"), [(SMALL, None), (ADM, 7), (NARROW, 7)], ids=["ddpm", "adm", "narrow"]
)
def test_there_and_back(model, num_classes):
    """The random weights of ours go into diffusers' own class, and come back as they were."""
    network = ours(model, 8, num_classes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    theirs = UNet2DModel(**unet_2d_config(model, 3, 3, 8, num_classes))
    theirs.load_state_dict(to_diffusers(network.state_dict(), model), strict=True)
    back = from_diffusers(theirs.state_dict(), model, num_classes)
    assert back.keys() == network.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in network.state_dict().items())


def test_a_table_without_no_label_gets_zeros_for_it():
    state = to_diffusers(ours(SMALL, 8, 7).state_dict(), SMALL)
    state["class_embedding.weight"] = state["class_embedding.weight"][:7]
    table = from_diffusers(state, SMALL, num_classes=7)["condition.table.weight"]
    assert torch.equal(table[:7], state["class_embedding.weight"])
    assert table.shape[0] == 8
    assert not table[7].any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"progressive_input": True}, "model.progressive_input is true; allowed: false"),
        ({"skip_rescale": True}, "model.skip_rescale is true"),
        ({"single_up_attention": True}, "model.single_up_attention is true"),
        ({"map_condition": True}, "model.map_condition is true"),
        ({"cross_attention": True}, "model.cross_attention is true"),
        ({"resample_projection": True}, "model.resample_projection is true"),
        ({"resample_filter": [1, 3, 3, 1]}, r"model.resample_filter is \[1, 3, 3, 1\]; allowed: \[1, 1\]"),
        ({"time_embedding": "fourier"}, "model.time_embedding is fourier; allowed: sinusoidal or cosine_first"),
        ({"heads": 4}, "model.heads is 4; allowed: 1 or head_channels"),
        ({"channel_multipliers": [2, 2]}, r"model.channel_multipliers is \[2, 2\]; allowed: 1 first"),
        ({"channels": 64}, "model.channels is 64; allowed: 128 or more"),
    ],
)
def test_what_diffusers_does_not_have(changes, words):
    with pytest.raises(UserError, match=words):
        to_diffusers({}, SMALL | changes)
    with pytest.raises(UserError, match=words):
        unet_2d_config(SMALL | changes, 3, 3, 8)


def test_old_names_of_attention():
    state = to_diffusers(ours(SMALL, 8).state_dict(), SMALL)
    renamed = dict(state)
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        renamed = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in renamed.items()}
    assert len(renamed.keys() - state.keys()) == 2 * 4 * 4, "weight and bias of four layers of four attentions"
    expected = from_diffusers(state, SMALL)
    found = from_diffusers(renamed, SMALL)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_weights_of_something_else():
    state = to_diffusers(ours(SMALL, 8).state_dict(), SMALL)
    with pytest.raises(UserError, match=r"weights: 'encoder\.weight' is unknown; allowed: the weights of diffusers'"):
        from_diffusers(state | {"encoder.weight": torch.zeros(1)}, SMALL)
    with pytest.raises(UserError, match=r"weights: 'down_blocks\.0\.resnets\..*' is unknown"):
        from_diffusers(state, SMALL | {"blocks_per_level": 0})
    del state["conv_in.weight"]
    with pytest.raises(UserError, match=r"weights: 'conv_in\.weight' is missing; allowed: all the weights of diff"):
        from_diffusers(state, SMALL)
