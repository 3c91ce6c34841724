"""Pipelines of Stable Diffusion's layout become runs that make the same images, and go back."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from helpers.clip import save_tiny_clip
from helpers.commands import call
from helpers.text_encoders import save_clip
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

import langevin
from langevin.diffusion.draws import SampleDraws
from langevin.errors import UserError
from langevin.interop.stable_diffusion import copy_encoder, read_text
from langevin.text.clip import CLIPTextEncoder

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STEPS, PROMPTS, NEGATIVE = 5, ["a red car", "zwölf 🚗 cars that are far too many"], ["blurred", ""]
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""Stable Diffusion's."""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Its parts with random weights; images of 16 pixels, latents of 8."""
    clip = save_tiny_clip(tmp_path_factory.mktemp("clip"))
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        norm_num_groups=8,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    torch.nn.init.normal_(unet.conv_out.weight, std=0.05)
    # So that the text matters.
    for name, weight in unet.named_parameters():
        if ".attn2." in name and weight.ndim > 1:
            torch.nn.init.normal_(weight, std=3 * weight.shape[1] ** -0.5)
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=16,
    )
    return StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel.from_pretrained(clip).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(clip, model_max_length=12),
        unet=unet.eval(),
        scheduler=DDIMScheduler(**SCHEDULER, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stable") / "diffusion"
    pipeline.save_pretrained(folder)
    return folder


def convert(*overrides):
    result = call("convert", *overrides)
    assert result.status == 0, result.err
    return result.out


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """The run that it becomes; it holds all of it, and may be moved."""
    place, copy = tmp_path_factory.mktemp("run"), folder.with_name("copy")
    shutil.copytree(folder, copy)
    (copy / "safety_checker").mkdir()
    assert "its safety_checker is left out" in convert(f"import={copy}", f"out={place / 'first'}")
    shutil.rmtree(copy)
    return (place / "first").rename(place / "moved")


def theirs(pipeline, patch, **arguments):
    """What a pipeline makes of our noise, as stored images."""
    noise = SampleDraws(0, range(len(PROMPTS)), (4, 8, 8)).normal()
    patch.setattr(StableDiffusionPipeline, "prepare_latents", lambda *_, **__: noise)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(PROMPTS, num_inference_steps=STEPS, height=16, width=16, output_type="np", **arguments)
    return np.round(255 * made.images).astype(int)


@pytest.mark.parametrize(
    ("scale", "negative"), [(1.0, None), (4.0, None), (4.0, NEGATIVE)], ids=["plain", "guided", "negative"]
)
def test_makes_the_pipelines_images(scale, negative, pipeline, run, monkeypatch):
    expected = theirs(pipeline, monkeypatch, guidance_scale=scale, negative_prompt=negative)
    loaded = langevin.load(run)
    made = loaded.sample(2, prompt=PROMPTS, negative=negative, steps=STEPS, guidance=scale).samples.astype(int)
    assert np.abs(made - expected).max() <= 1
    assert expected.std() > 20, "else next to nothing would be compared"
    assert np.mean((expected > 2) & (expected < 253)) > 0.3
    others = loaded.sample(2, prompt=PROMPTS[::-1], steps=STEPS, guidance=scale).samples.astype(int)
    assert np.abs(others - made).max() > 8


def test_there_and_back(pipeline, run, tmp_path, monkeypatch):
    assert convert(f"export={run}", f"out={tmp_path / 'out'}").count("\n") == 1, "nothing to be known"
    back = StableDiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None)
    for name in ("unet", "vae", "text_encoder"):
        first, second = (getattr(each, name).state_dict() for each in (pipeline, back))
        assert first.keys() == second.keys()
        assert all(torch.equal(second[key], tensor) for key, tensor in first.items())
    images = [theirs(each, monkeypatch, guidance_scale=4.0) for each in (pipeline, back)]
    assert np.array_equal(*images)


@pytest.mark.parametrize("names_its_kind", [True, False])
def test_of_a_whole_clip_the_text_half_is_written(names_its_kind, tmp_path):
    """Over another encoder, whose files do not stay."""
    clip, out = save_tiny_clip(tmp_path / "clip"), tmp_path / "out"
    if not names_its_kind:
        config = json.loads((clip / "config.json").read_text())
        del config["text_config"]["model_type"]
        (clip / "config.json").write_text(json.dumps(config))
    stale = [out / "text_encoder" / "pytorch_model.bin", out / "text_encoder" / "model-00001-of-00002.safetensors"]
    stale.append(out / "tokenizer" / "vocab.json")
    for file in stale:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"stale")
    encoder = CLIPTextEncoder(str(clip), length=12)
    assert copy_encoder(encoder, out) == out
    assert not any(file.exists() for file in stale)
    assert read_text(out, "unet/config.json", 16) == ["text.length=12"]
    copied = CLIPTextEncoder(str(out), length=12)
    assert copied.weights == encoder.weights
    first, second = (CLIPTextModel.from_pretrained(place).state_dict() for place in (clip, out / "text_encoder"))
    assert first.keys() == second.keys()
    assert all(torch.equal(second[key], tensor) for key, tensor in first.items())
    copy_encoder(copied, out)
    assert CLIPTextEncoder(str(out), length=12).weights == encoder.weights


def test_a_copy_leaves_no_weights_that_would_be_taken_first(tmp_path):
    clip, out = save_clip(tmp_path / "clip"), tmp_path / "out"
    weights = load_file(clip / "model.safetensors")
    (clip / "model.safetensors").unlink()
    torch.save(weights, clip / "pytorch_model.bin")
    copy_encoder(CLIPTextEncoder(str(save_clip(tmp_path / "other", seed=1)), length=12), out)
    encoder = CLIPTextEncoder(str(clip), length=12)
    copy_encoder(encoder, out)
    assert CLIPTextEncoder(str(out), length=12).weights == encoder.weights


def test_what_it_lacks_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "mute")
    shutil.rmtree(tmp_path / "mute" / "text_encoder")
    for place in (folder / "unet", tmp_path / "mute"):
        result = call("convert", f"import={place}", f"out={tmp_path / 'out'}")
        assert result.status == 1
        assert f"error: import={place}: attends to text, whose encoder is not there; allowed: the folder" in result.err
        assert result.err.count("\n") == 1
    config = folder / "unet" / "config.json"
    with pytest.raises(UserError, match=r"config\.json: cross_attention_dim is 32; allowed: 16, as its text_encoder/"):
        read_text(folder, str(config), 32)
