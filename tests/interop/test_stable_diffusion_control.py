"""Stable Diffusion's ControlNets: the same outputs and images as diffusers', there and back, and what does not fit."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from helpers.clip import save_tiny_clip
from helpers.commands import call
from transformers import CLIPTextModel, CLIPTokenizer

import langevin
from langevin.assembly.saved import load_trained
from langevin.conditions.hint import COLUMN, SCALE
from langevin.diffusion.draws import SampleDraws

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

B, SIDE, LATENT, TOKENS, STEPS = 2, 32, 8, 16, 5
PROMPTS, NEGATIVE = ["a red car", "zwölf 🚗 cars that are far too many"], ["blurred", ""]
BOTH = {
    "block_out_channels": (32, 64),
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "cross_attention_dim": TOKENS,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
}
SECOND = {"attention_head_dim": (2, 4), "use_linear_projection": True}
"""How the blocks of Stable Diffusion 2 differ from those of 1."""
STEM = (4, 8, 12)
"""Hints are four times as large as latents."""


def networks(changes, channels):
    torch.manual_seed(0)
    own = {**BOTH, **changes}
    base = UNet2DConditionModel(sample_size=LATENT, up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **own)
    control = ControlNetModel(conditioning_channels=channels, conditioning_embedding_out_channels=STEM, **own)
    # So that nothing is zero, and text and hints matter.
    for network in (base, control):
        for name, weight in network.named_parameters():
            if ".attn2." in name and weight.ndim > 1:
                torch.nn.init.normal_(weight, std=3 * weight.shape[1] ** -0.5)
            elif "controlnet_" in name or "conv_out" in name:
                torch.nn.init.normal_(weight, std=0.05)
    return base.eval(), control.eval()


def pipeline_of(folder, changes, channels):
    clip = save_tiny_clip(folder)
    base, control = networks(changes, channels)
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        steps_offset=1,
        clip_sample=False,
        prediction_type="v_prediction" if changes else "epsilon",
    )
    return StableDiffusionControlNetPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel.from_pretrained(clip).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(clip, model_max_length=12),
        unet=base,
        controlnet=control,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def convert(*overrides, status=0):
    result = call("convert", *overrides)
    assert result.status == status, result.err
    return result


class Imported:
    """A pipeline, its folder and the run that it becomes."""

    def __init__(self, place, changes, channels):
        self.pipeline, self.channels = pipeline_of(place / "clip", changes, channels), channels
        self.folder, self.run = place / "theirs", place / "run"
        self.pipeline.save_pretrained(self.folder)
        self.said = convert(f"import={self.folder}", f"out={self.run}").out
        self.hints = np.random.default_rng(0).integers(0, 256, (B, SIDE, SIDE, channels), np.uint8)
        np.savez(place / "hints.npz", arr_0=self.hints)
        self.options = [f"hint.hints={place / 'hints.npz'}"]

    @property
    def controls(self):
        """The hints as a network is given them."""
        return torch.from_numpy(self.hints).movedim(-1, 1).float() / 255

    def theirs(self, pipeline, patch, **arguments):
        """What a pipeline makes of our noise, as stored images."""
        noise = SampleDraws(0, range(B), (4, LATENT, LATENT)).normal()
        patch.setattr(StableDiffusionControlNetPipeline, "prepare_latents", lambda *_, **__: noise)
        pipeline.set_progress_bar_config(disable=True)
        sizes = {"num_inference_steps": STEPS, "height": SIDE, "width": SIDE, "output_type": "np"}
        return np.round(255 * pipeline(PROMPTS, image=self.controls, **sizes, **arguments).images).astype(int)

    def ours(self, scale, negative=None, weight=1.0):
        options = [*self.options, f"hint.scale={weight}"]
        loaded = langevin.load(self.run)
        asked = {"prompt": PROMPTS, "negative": negative, "steps": STEPS, "guidance": scale}
        return loaded.sample(B, **asked, overrides=options).samples.astype(int)


@pytest.fixture(scope="module", params=[({}, 3), (SECOND, 1)], ids=["1", "2"])
def imported(request, tmp_path_factory):
    return Imported(tmp_path_factory.mktemp("control"), *request.param)


def test_the_same_outputs(imported):
    network = load_trained(imported.run / "checkpoints" / "last.ckpt").denoiser.network
    base, control = imported.pipeline.unet, imported.pipeline.controlnet
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(B, 4, LATENT, LATENT, generator=generator)
    text, times = torch.randn(B, 5, TOKENS, generator=generator), torch.tensor([3.0, 500.0])
    mask, pooled = torch.ones(B, 5, dtype=torch.bool), torch.zeros(B, TOKENS)
    given = {"text": text, "text_mask": mask, "text_pooled": pooled, COLUMN: imported.controls}
    made = {}
    with torch.no_grad():
        for scale in (0.0, 0.5, 1.0):
            down, middle = control(x, times, text, imported.controls, scale, return_dict=False)
            extra = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            made[scale] = network(x, times, {**given, SCALE: torch.full((B,), scale)})
            wanted = base(x, times, text, **extra).sample
            torch.testing.assert_close(made[scale], wanted, rtol=1e-5, atol=1e-5)
    assert (made[1.0] - made[0.0]).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("scale", "negative", "weight"),
    [(1.0, None, 1.0), (4.0, None, 1.0), (4.0, NEGATIVE, 0.5)],
    ids=["plain", "guided", "negative"],
)
def test_makes_the_pipelines_images(imported, scale, negative, weight, monkeypatch):
    arguments = {"guidance_scale": scale, "negative_prompt": negative, "controlnet_conditioning_scale": weight}
    expected = imported.theirs(imported.pipeline, monkeypatch, **arguments)
    made = imported.ours(scale, negative, weight)
    assert np.abs(made - expected).max() <= 1
    assert np.mean((expected > 2) & (expected < 253)) > 0.3, "else next to nothing would be compared"
    assert np.abs(imported.ours(scale, negative, 0.0) - made).max() > 8, "the hints matter"


def test_there_and_back(imported, tmp_path, monkeypatch):
    said = convert(f"export={imported.run}", f"out={tmp_path / 'out'}").out
    assert ("its hints have one channel" in said) == (imported.channels == 1)
    back = StableDiffusionControlNetPipeline.from_pretrained(tmp_path / "out", safety_checker=None)
    for name in ("unet", "vae", "text_encoder", "controlnet"):
        first, second = (getattr(each, name).state_dict() for each in (imported.pipeline, back))
        assert first.keys() == second.keys()
        assert all(torch.equal(second[key], tensor) for key, tensor in first.items())
    images = [imported.theirs(each, monkeypatch, guidance_scale=4.0) for each in (imported.pipeline, back)]
    assert np.array_equal(*images)


@pytest.mark.parametrize(
    ("inner", "changes", "words"),
    [
        ("controlnet", {"conditioning_embedding_out_channels": [4, 8]}, "allowed: a list of 3, since each after"),
        ("controlnet", {"global_pool_conditions": True}, "global_pool_conditions is true; allowed: "),
        ("controlnet", {"addition_embed_type": "text_time"}, 'addition_embed_type is "text_time"; allowed: null'),
        ("controlnet", {"cross_attention_dim": 8}, "cross_attention_dim is 8; allowed: 16, as its base has"),
        ("controlnet", {"attention_head_dim": 2}, "attention_head_dim is 2; allowed: 4, as its base has"),
        (".", {"_class_name": "StableDiffusionControlNetImg2ImgPipeline"}, "ControlNetImg2ImgPipeline; allowed: "),
        (".", {"controlnet": ["diffusers", "MultiControlNetModel"]}, "controlnet_1: is a second ControlNetModel"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_reported(inner, changes, words, tmp_path_factory, tmp_path, plain_folder):
    folder = tmp_path / "theirs"
    shutil.copytree(plain_folder, folder)
    file = folder / inner / ("model_index.json" if inner == "." else "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    if "controlnet" in changes:
        shutil.copytree(folder / "controlnet", folder / "controlnet_1")
    result = convert(f"import={folder}", f"out={tmp_path / 'run'}", status=1)
    assert words in result.err
    assert result.err.count("error:") == 1
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("plain")
    pipeline_of(place / "clip", {}, 3).save_pretrained(place / "theirs")
    return place / "theirs"
