"""ControlNets of diffusers without text, beside their base: the same outputs, there and back, and what does not fit."""

import json
import re

import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from helpers.commands import call
from helpers.pipelines import ddim_folder, unet

from langevin.assembly.saved import load_trained
from langevin.conditions.hint import COLUMN, SCALE
from langevin.errors import UserError
from langevin.interop.textless_unet import textless_config

B, SIDE, CLASSES = 2, 8, 3
BOTH = {
    "in_channels": 1,
    "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 16,
    "num_class_embeds": CLASSES,
}
BASE = {"sample_size": SIDE, "out_channels": 1, "up_block_types": ("UpBlock2D", "AttnUpBlock2D")}
ALONE = {"num_class_embeds": None, "resnet_time_scale_shift": "scale_shift", "attention_head_dim": 32}


def networks(channels=1, **changes):
    """A base and its ControlNet of random weights, none of them zero."""
    torch.manual_seed(0)
    base = UNet2DConditionModel(**BASE, **BOTH | changes).eval()
    control = ControlNetModel(
        **BOTH | changes, conditioning_channels=channels, conditioning_embedding_out_channels=(16,)
    )
    for network in (base, control):
        for weight in network.parameters():
            weight.data.add_(0.1 * torch.randn(weight.shape))
    if base.class_embedding is not None:
        control.class_embedding.load_state_dict(base.class_embedding.state_dict())
    return base, control.eval()


def saved(folder, base, control):
    base.save_pretrained(folder / "unet")
    control.save_pretrained(folder / "controlnet")
    DDIMScheduler(prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    return folder


def convert(*overrides, status=0):
    result = call("convert", *overrides)
    assert result.status == status, result.err
    return result


def network_of(run):
    return load_trained(run / "checkpoints" / "last.ckpt").denoiser.network


def inputs(channels=1):
    generator = torch.Generator().manual_seed(1)
    x, hint = (torch.randn(B, each, SIDE, SIDE, generator=generator) for each in (1, channels))
    return x, torch.tensor([3.0, 500.0]), hint.sigmoid()


def theirs(base, control, scale, labelled):
    x, times, hint = inputs(control.config.conditioning_channels)
    label = {"class_labels": torch.arange(B)} if labelled else {}
    down, middle = control(x, times, None, hint, scale, **label, return_dict=False)
    extra = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    return base(x, times, None, **label, **extra).sample


def ours(network, scale, labelled):
    x, times, hint = inputs(network.control.hint[0].in_channels)
    label = {"label": torch.arange(B)} if labelled else {}
    return network(x, times, {**label, COLUMN: hint, SCALE: torch.full((B,), scale)})


def assert_same(network, base, control, labelled):
    with torch.no_grad():
        found = {scale: ours(network, scale, labelled) for scale in (0.0, 0.5, 1.0)}
        for scale, made in found.items():
            torch.testing.assert_close(made, theirs(base, control, scale, labelled), rtol=1e-5, atol=1e-5)
    assert (found[1.0] - found[0.0]).abs().mean() > 0.01
    assert (found[1.0] - found[0.5]).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("channels", "changes"),
    [pytest.param(1, {}, id="labels"), pytest.param(3, ALONE, id="colour", marks=pytest.mark.slow)],
)
def test_the_same_outputs(tmp_path, channels, changes):
    base, control = networks(channels, **changes)
    result = convert(f"import={saved(tmp_path / 'theirs', base, control)}", f"out={tmp_path / 'run'}")
    assert "its hints are taken for edges" in result.out
    assert_same(network_of(tmp_path / "run"), base, control, labelled=not changes)


@pytest.mark.slow
def test_there_and_back(tmp_path):
    base, control = networks()
    convert(f"import={saved(tmp_path / 'theirs', base, control)}", f"out={tmp_path / 'run'}")
    result = convert(f"export={tmp_path / 'run'}", f"out={tmp_path / 'again'}", "sampler=ddim")
    assert "ControlNetModel.from_pretrained(" in result.out
    assert not (tmp_path / "again" / "model_index.json").exists()
    again = UNet2DConditionModel.from_pretrained(tmp_path / "again" / "unet").eval()
    # Its table of classes has a row more, for no label.
    assert all(torch.equal(each, again.state_dict()[name][: len(each)]) for name, each in base.state_dict().items())
    network = network_of(tmp_path / "run")
    assert_same(network, again, ControlNetModel.from_pretrained(tmp_path / "again" / "controlnet").eval(), True)

    convert(f"import={tmp_path / 'again'}", f"out={tmp_path / 'back'}")
    back = network_of(tmp_path / "back").state_dict()
    assert back.keys() == network.state_dict().keys()
    assert all(torch.equal(each, back[name]) for name, each in network.state_dict().items())


def test_a_base_alone(tmp_path):
    base, control = networks()
    folder = saved(tmp_path / "theirs", base, control)
    convert(f"import={folder / 'unet'}", f"out={tmp_path / 'run'}", "schedule=linear", "parameterization=eps")
    x, times, _ = inputs()
    with torch.no_grad():
        wanted = base(x, times, None, class_labels=torch.arange(B)).sample
        made = network_of(tmp_path / "run")(x, times, {"label": torch.arange(B)})
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5)
    result = convert(f"import={folder / 'controlnet'}", f"out={tmp_path / 'no'}", status=1)
    assert "is a ControlNetModel; allowed: a folder with this in controlnet/ and the network that it" in result.err


@pytest.mark.parametrize(
    ("inner", "changes", "words"),
    [
        ("controlnet", {"conditioning_embedding_out_channels": [16, 32]}, "is [16, 32]; allowed: a list of 1, "),
        ("controlnet", {"layers_per_block": 2}, "layers_per_block is 2; allowed: 1, as its base has"),
        ("controlnet", {"global_pool_conditions": True}, "global_pool_conditions is true; allowed: "),
        ("controlnet", {"_class_name": "T2IAdapter"}, '_class_name is "T2IAdapter"; allowed: ControlNetModel'),
        (
            "unet",
            {"mid_block_type": "UNetMidBlock2DCrossAttn", "num_class_embeds": None},
            '"DownBlock2D"]; allowed: a list, each item one of CrossAttnDown',
        ),
        ("unet", {"encoder_hid_dim": 8}, "encoder_hid_dim is 8; allowed: null, for it is not known here"),
    ],
)
def test_what_does_not_fit_is_reported(tmp_path, inner, changes, words):
    folder = saved(tmp_path / "theirs", *networks())
    file = folder / inner / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(config))
    result = convert(f"import={folder}", f"out={tmp_path / 'run'}", status=1)
    assert words in result.err
    assert result.err.count("error:") == 1
    assert not (tmp_path / "run").exists()


def test_other_tables_of_classes_are_reported(tmp_path):
    base, control = networks()
    torch.nn.init.zeros_(control.class_embedding.weight)
    result = convert(f"import={saved(tmp_path / 'theirs', base, control)}", f"out={tmp_path / 'run'}", status=1)
    assert "'class_embedding.weight' of the ControlNetModel are not those of the base; allowed: the same" in result.err


def test_it_goes_with_no_other_base(tmp_path):
    _, control = networks()
    ddim_folder(tmp_path / "theirs", unet())
    control.save_pretrained(tmp_path / "theirs" / "controlnet")
    result = convert(f"import={tmp_path / 'theirs'}", f"out={tmp_path / 'run'}", status=1)
    assert "controlnet: is beside a UNet2DModel; allowed: beside a UNet2DConditionModel" in result.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"middle_attention": True}, "model.middle_attention is true; allowed: false, for diffusers' UNet2DCondition"),
        ({"residual_resampling": True}, "model.residual_resampling is true; allowed: false where there is attention"),
        (
            {"head_channels": None},
            "model.head_channels is null with attention at the widths [32, 64]; allowed: a number",
        ),
        ({"skip_rescale": True}, "model.skip_rescale is true; allowed: false"),
    ],
)
def test_what_diffusers_does_not_have(changes, words):
    own = {
        "channels": 32,
        "channel_multipliers": [1, 2],
        "blocks_per_level": 1,
        "attention_resolutions": [8, 4],
        "head_channels": 16,
        "norm_groups": 8,
        "dropout": 0.0,
        "middle_attention": False,
        "control": True,
    }
    textless_config(own, 1, 1, SIDE)
    with pytest.raises(UserError, match=re.escape(words)):
        textless_config(own | changes, 1, 1, SIDE)
