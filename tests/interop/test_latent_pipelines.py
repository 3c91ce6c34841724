"""Models in latents go to diffusers' own pipelines, make the same images there, and come back."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel, LDMPipeline, UNet2DModel
from diffusers.pipelines.deprecated.latent_diffusion_uncond import pipeline_latent_diffusion_uncond
from diffusers.pipelines.dit import pipeline_dit
from helpers.autoencoders import autoencoder
from helpers.commands import call, composed
from helpers.pipelines import unet
from helpers.saved import save_untrained
from omegaconf import open_dict

import langevin
from langevin.assembly.components import make_codec
from langevin.assembly.saved import load_model
from langevin.checkpoint import find_checkpoint
from langevin.diffusion.draws import SampleDraws
from langevin.spec import DataSpec

pytestmark = pytest.mark.e2e

NUMBER, STEPS, LATENTS = 4, 5, (4, 4, 4)  # its DDIM steps exactly only where their number divides 1000
KL, VQ = ("autoencoder=kl_f4",), ("autoencoder=vq_f4", "autoencoder.num_codes=30")
AUTOENCODER = (
    "codec=autoencoder",
    "codec.run=null",
    "autoencoder.latent_channels=4",
    "autoencoder.channels=16",
    "autoencoder.channel_multipliers=[1,2,2]",
    "autoencoder.blocks_per_level=1",
    "autoencoder.norm_groups=4",
)
SAMPLING = ("parameterization=v", "sampler=ddim", f"sampler.steps={STEPS}", "timestep_spacing=trailing")
UNET = (
    "model=unet_small",
    "model.channels=32",
    "model.channel_multipliers=[1,2]",
    "model.attention_resolutions=[2]",
    "model.norm_groups=8",
)
DIT = ("model=dit_s", "model.width=32", "model.depth=2", "model.heads=2", "model.time_endpoint=true")
LABELS = "conditions=[class_label]"
OF_LATENTS = {"in_channels": 4, "out_channels": 4, "sample_size": 4}
SCHEDULER = DDIMScheduler(clip_sample=False, prediction_type="v_prediction")
ONE, EACH = (0.0, 0.0, 0.0, 0.0), (0.3, -0.2, 0.5, 0.1)
"""Shifts of the latents: with one scale for all channels, and with one for each."""


def saved(folder, *overrides, shift=ONE, scale=(1.7,) * 4, num_classes=None):
    """A run of random weights in latents of random weights."""
    cfg, _ = composed("train", *AUTOENCODER, *SAMPLING, *overrides)
    spec = DataSpec.of_images(3, 16, num_classes)
    torch.manual_seed(0)
    codec = make_codec(cfg, spec)
    codec.shift.copy_(torch.tensor(shift).reshape(-1, 1, 1))
    codec.scale.copy_(torch.tensor(scale).reshape(-1, 1, 1))
    # Bias and contrast, so that images differ and a shift would be seen.
    torch.nn.init.normal_(codec.network.after.bias)
    torch.nn.init.normal_(codec.network.decoder.last.weight, std=0.1)
    if hasattr(codec.network, "codes"):
        torch.nn.init.normal_(codec.network.codes.weight)
    with open_dict(cfg):
        cfg.trust = []
    (folder / "checkpoints").mkdir(parents=True)
    save_untrained(folder / "checkpoints" / "last.ckpt", cfg, spec, codec)
    return folder


def convert(*overrides):
    result = call("convert", *overrides)
    assert result.status == 0, result.err
    return result.out


def ours(run, **options):
    return langevin.load(run).sample(NUMBER, **options).samples.astype(int)


def theirs(pipeline, module, patch, **arguments):
    """What a pipeline makes of our noise, as stored images."""
    patch.setattr(module, "randn_tensor", lambda *_, **__: SampleDraws(0, range(NUMBER), LATENTS).normal())
    pipeline.set_progress_bar_config(disable=True)
    return np.round(255 * pipeline(num_inference_steps=STEPS, output_type="np", **arguments).images).astype(int)


def assert_same(made, expected):
    assert np.abs(made - expected).max() <= 1
    assert expected.std() > 20, "else next to nothing would be compared"
    assert np.mean((expected > 2) & (expected < 253)) > 0.3


@pytest.mark.parametrize(
    ("kind", "scaling"),
    [
        # What scales each channel goes into a DiTPipeline below, and there and back.
        pytest.param(KL, {"shift": EACH, "scale": (1.7, 0.6, 1.2, 0.9)}, marks=pytest.mark.slow),
        pytest.param(KL, {}, marks=pytest.mark.slow),
        pytest.param(VQ, {}, marks=pytest.mark.slow),
        (VQ, {"shift": EACH}),
    ],
    ids=["kl-channels", "kl-global", "vq-global", "vq-shift"],
)
def test_an_unconditional_unet_is_an_ldm_pipeline(kind, scaling, tmp_path, monkeypatch):
    run = saved(tmp_path / "run", *kind, *UNET, "conditions=[]", **scaling)
    output = convert(f"export={run}", f"out={tmp_path / 'out'}")
    assert ("LDMPipeline warns that it expects a VQModel" in output) == (kind == KL)
    pipeline = LDMPipeline.from_pretrained(tmp_path / "out")
    assert type(pipeline.vqvae).__name__ == ("AutoencoderKL" if kind == KL else "VQModel")
    expected = theirs(pipeline, pipeline_latent_diffusion_uncond, monkeypatch, batch_size=NUMBER)
    assert_same(ours(run), expected)


def test_a_dit_is_a_dit_pipeline(tmp_path, monkeypatch):
    scaling = {"shift": EACH, "scale": (1.7, 0.6, 1.2, 0.9)}
    run = saved(tmp_path / "run", *KL, *DIT, LABELS, num_classes=5, **scaling)
    output = convert(f"export={run}", f"out={tmp_path / 'out'}")
    assert "guides with class 1000 for no label; here that is 5, so call it with guidance_scale=1" in output
    pipeline = DiTPipeline.from_pretrained(tmp_path / "out")
    expected = theirs(pipeline, pipeline_dit, monkeypatch, class_labels=[0, 1, 2, 4], guidance_scale=1)
    assert_same(ours(run, labels=[0, 1, 2, 4]), expected)


def test_a_unet_of_classes_has_no_pipeline(tmp_path):
    """It is loaded and called as the notes say."""
    run = saved(tmp_path / "run", *KL, *UNET, LABELS, num_classes=5)
    output = convert(f"export={run}", f"out={tmp_path / 'out'}")
    assert f"UNet2DModel.from_pretrained('{tmp_path / 'out'}', subfolder='unet')" in output
    assert f"vae is AutoencoderKL.from_pretrained('{tmp_path / 'out'}', subfolder='vae')" in output
    assert not (tmp_path / "out" / "model_index.json").exists()
    unet = UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet").eval()
    vae = AutoencoderKL.from_pretrained(tmp_path / "out", subfolder="vae").eval()
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    scheduler.set_timesteps(STEPS)
    z, labels = SampleDraws(0, range(NUMBER), LATENTS).normal(), torch.arange(NUMBER)
    with torch.no_grad():
        for t in scheduler.timesteps:
            z = scheduler.step(unet(z, t, labels).sample, t, z).prev_sample
        x = vae.decode(z / vae.config.scaling_factor).sample
    expected = ((x.clamp(-1, 1) + 1) * 127.5).round().movedim(1, -1).numpy().astype(int)
    assert_same(ours(run, labels=[0, 1, 2, 3]), expected)


def test_codes_bear_one_scale(tmp_path):
    run = saved(tmp_path / "run", *VQ, *UNET, "conditions=[]", scale=(1.7, 0.6, 1.2, 0.9))
    result = call("convert", f"export={run}", f"out={tmp_path / 'out'}")
    assert result.status == 1
    assert "error: codec.scaling is channels; allowed: a model trained with global, or a number" in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def imported(folder, tmp_path, *overrides):
    """The run that a folder becomes; the folder is removed, for the run holds all of it."""
    convert(f"import={folder}", f"out={tmp_path / 'again'}", f"sampler.steps={STEPS}", *overrides)
    shutil.rmtree(folder)
    return tmp_path / "again"


@pytest.mark.parametrize(
    ("kind", "scaling"),
    [
        pytest.param(KL, {}, marks=pytest.mark.slow, id="kl"),
        pytest.param(VQ, {}, marks=pytest.mark.slow, id="vq"),
        pytest.param(KL, {"shift": EACH, "scale": (1.7, 0.6, 1.2, 0.9)}, id="folded"),
    ],
)
def test_there_and_back(kind, scaling, tmp_path):
    """To the bit, where no scaling was built into the weights."""
    run = saved(tmp_path / "run", *kind, *UNET, "conditions=[]", **scaling)
    convert(f"export={run}", f"out={tmp_path / 'out'}")
    back = imported(tmp_path / "out", tmp_path)
    first, second = (load_model(find_checkpoint(place)) for place in (run, back))
    assert second.spec == first.spec
    weights, again = (model.denoiser.network.state_dict() for model in (first, second))
    assert weights.keys() == again.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
    z = torch.randn(3, *LATENTS, generator=torch.Generator().manual_seed(0))
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    draws = [SampleDraws(0, range(3), (3, 16, 16)) for _ in range(2)]
    exact = {"rtol": 0, "atol": 1e-5 if scaling else 0}
    torch.testing.assert_close(second.codec.decode(z), first.codec.decode(z), **exact)
    torch.testing.assert_close(second.codec.encode(x, draws[0]), first.codec.encode(x, draws[1]), **exact)
    assert np.abs(ours(back) - ours(run)).max() <= (1 if scaling else 0)


def test_a_pipeline_of_diffusers(tmp_path, monkeypatch):
    """As diffusers saves one: of a VQModel, with Stable Diffusion's scale, and of a size that is not its config's."""
    networks = autoencoder("vq", sample_size=64), unet(**OF_LATENTS)
    fields = {
        "prediction_type": "v_prediction",
        "clip_sample": False,
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "set_alpha_to_one": False,
    }
    pipeline = LDMPipeline(*networks, DDIMScheduler(**fields))
    torch.nn.init.normal_(pipeline.vqvae.quantize.embedding.weight, std=3)
    torch.nn.init.normal_(pipeline.vqvae.decoder.conv_out.weight, std=0.1)
    pipeline.save_pretrained(tmp_path / "folder")
    run = imported(tmp_path / "folder", tmp_path)
    cfg = load_model(find_checkpoint(run)).cfg
    assert (cfg.codec.scaling, cfg.codec.channels) == (0.18215, 3)
    expected = theirs(pipeline, pipeline_latent_diffusion_uncond, monkeypatch, batch_size=NUMBER)
    assert expected.shape == (NUMBER, 16, 16, 3)
    assert_same(ours(run), expected)


def test_a_dit_pipeline_of_diffusers(tmp_path, monkeypatch):
    """Of 1000 classes, and guided, by classifier-free guidance of all channels."""
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 4}
    network = DiTTransformer2DModel(
        **sizes, in_channels=4, out_channels=8, num_embeds_ada_norm=1000
    ).eval()  # without label dropout
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    pipeline = DiTPipeline(network, autoencoder("kl"), SCHEDULER)
    torch.nn.init.normal_(pipeline.vae.decoder.conv_out.weight, std=0.05)
    pipeline.save_pretrained(tmp_path / "folder")
    run = imported(tmp_path / "folder", tmp_path)
    labels = [0, 7, 500, 999]
    expected = theirs(pipeline, pipeline_dit, monkeypatch, class_labels=labels, guidance_scale=3)
    # A learned variance is of no use to DDIM, but the network puts it out.
    made = ours(run, labels=labels, guidance=3.0)
    assert_same(made, expected)


def test_shift_and_unknown_scale(tmp_path):
    """A shift comes before the scale; and what a config older than its scale means is said."""
    LDMPipeline(autoencoder("kl", shift_factor=0.4), unet(**OF_LATENTS), SCHEDULER).save_pretrained(tmp_path / "kl")
    convert(f"import={tmp_path / 'kl'}", f"out={tmp_path / 'shifted'}")
    codec = load_model(find_checkpoint(tmp_path / "shifted")).codec
    z = torch.randn(2, *LATENTS)
    with torch.no_grad():
        expected = autoencoder("kl").decode(z / 0.18215 + 0.4).sample
    torch.testing.assert_close(codec.decode(z), expected, rtol=0, atol=1e-4)
    LDMPipeline(autoencoder("vq"), unet(**OF_LATENTS), SCHEDULER).save_pretrained(tmp_path / "vq")
    edit(tmp_path / "vq" / "vqvae" / "config.json", scaling_factor=None)
    output = convert(f"import={tmp_path / 'vq'}", f"out={tmp_path / 'unknown'}")
    assert "names no scaling_factor, so its latents are not scaled" in output
    assert float(load_model(find_checkpoint(tmp_path / "unknown")).codec.scale[0]) == 1
    convert(f"import={tmp_path / 'vq'}", f"out={tmp_path / 'chosen'}", "codec.scaling=0.5")
    assert float(load_model(find_checkpoint(tmp_path / "chosen")).codec.scale[0]) == 2


@pytest.mark.parametrize(
    ("place", "fields", "overrides", "words"),
    [
        (
            "model_index.json",
            {"_class_name": "StableDiffusionXLPipeline"},
            [],
            "has a StableDiffusionXLPipeline; allowed: DDPMPipeline, DDIMPipeline, LDMPipeline, DiTPipeline, "
            "LDMSuperResolutionPipeline, StableDiffusionPipeline, StableDiffusionControlNetPipeline; or its "
            "autoencoder alone, with import={}/vqvae",
        ),
        (
            "unet/config.json",
            {"_class_name": "UNet3DConditionModel"},
            [],
            "has a UNet3DConditionModel; allowed: UNet2DModel, ",
        ),
        ("vqvae/config.json", {"_class_name": "AutoencoderTiny"}, [], '_class_name is "AutoencoderTiny"; allowed: '),
        ("vqvae/config.json", {"latent_channels": 3}, [], "latent_channels is 3; allowed: 4, as the network has"),
        ("vqvae/config.json", {"latents_std": [1.0] * 4}, [], "latents_std is given; allowed: null, for these"),
        ("scheduler/scheduler_config.json", {"clip_sample": True}, [], "thresholding: Static "),
        (None, {}, ["codec=identity"], "codec: is what is imported; leave it out, single fields may be set"),
        (None, {}, ["codec.scaling=0"], "codec.scaling: is 0; allowed: "),
        (None, {}, ["codec.scale=1"], "codec.scale: no such option (did you mean scaling?)"),
    ],
)
def test_what_cannot_be_imported(place, fields, overrides, words, tmp_path):
    folder = tmp_path / "folder"
    LDMPipeline(autoencoder("kl"), unet(**OF_LATENTS), SCHEDULER).save_pretrained(folder)
    if place is not None:
        edit(folder / place, **fields)
    result = call("convert", f"import={folder}", f"out={tmp_path / 'run'}", *overrides)
    assert result.status == 1
    assert words.format(folder) in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "run").exists()


def test_a_part_of_a_pipeline(tmp_path):
    """Of three channels, which would pass for an image's."""
    sizes = {"in_channels": 3, "out_channels": 3, "sample_size": 4}
    LDMPipeline(autoencoder("vq", latent_channels=3), unet(**sizes), SCHEDULER).save_pretrained(tmp_path / "folder")
    result = call("convert", f"import={tmp_path / 'folder' / 'unet'}", f"out={tmp_path / 'run'}")
    allowed = f"allowed: the pipeline, import={tmp_path / 'folder'}"
    assert result.err == f"error: import={tmp_path / 'folder' / 'unet'}: diffuses latents; {allowed}\n"


def edit(file, **fields):
    config = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
