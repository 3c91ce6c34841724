"""Folders of diffusers become runs that make the images of diffusers' own pipelines, and come back as they were."""

import json
import logging
import warnings
from typing import NamedTuple

import diffusers
import pytest
import safetensors.torch
import torch
from diffusers import DiffusionPipeline
from helpers.commands import call, composed
from helpers.pipelines import BETAS, TWO_LEVELS, ddim_folder, ddpm_folder, unet
from omegaconf import DictConfig

from langevin.assembly.check import check_model
from langevin.assembly.components import SAMPLING, make_model, make_sampler
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import SampleDraws
from langevin.interop.pipeline import read_folder
from langevin.spec import DataSpec

pytestmark = pytest.mark.e2e

BATCH, SHAPE, STEPS = 3, (1, 8, 8), 5
DYNAMIC = {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.5}


@pytest.fixture(scope="module")
def network():
    return unet()


class Model(NamedTuple):
    cfg: DictConfig
    denoiser: Denoiser
    spec: DataSpec


def model_of(folder):
    """The model of a folder, by what the command takes it from."""
    imported = read_folder(folder)
    cfg, _ = composed("train", *imported.overrides)
    cfg.sampler.steps = STEPS
    check_model(cfg, SAMPLING)
    spec = DataSpec.of_images(imported.channels, imported.image_size, imported.num_classes)
    denoiser = make_model(cfg, spec)
    model = {name: value for name, value in cfg.model.items() if name != "_target_"}
    denoiser.network.load_state_dict(imported.weights(model), strict=True)
    return Model(cfg, denoiser.eval(), spec)


def convert(*overrides):
    result = call("convert", *overrides)
    assert result.status == 0, result.err
    return result.out


def noise():
    return SampleDraws(0, range(BATCH), SHAPE)


def ours(model):
    return make_sampler(model.cfg, model.spec)(model.denoiser, noise())


def theirs(pipeline, patch, **arguments):
    """What a pipeline makes of our noise, in [-1, 1] before rounding."""
    source = noise()
    for module in (
        diffusers.pipelines.ddim.pipeline_ddim,
        diffusers.pipelines.ddpm.pipeline_ddpm,
        diffusers.schedulers.scheduling_ddpm,
        diffusers.schedulers.scheduling_ddim,
    ):
        patch.setattr(module, "randn_tensor", lambda *_, **__: source.normal())
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(batch_size=BATCH, num_inference_steps=STEPS, output_type="pt", **arguments).images
    return 2 * made - 1


def assert_same(made, expected):
    made = made.clamp(-1, 1)
    assert (made - expected).abs().max() < 1e-4
    assert (expected.abs() < 0.99).float().mean() > 0.3, "else next to nothing would be compared"
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [
        pytest.param(schedule, prediction, marks=[] if i == j else [pytest.mark.slow])  # each of them once, every day
        for i, schedule in enumerate(["linear", "scaled_linear", "squaredcos_cap_v2"])
        for j, prediction in enumerate(["epsilon", "sample", "v_prediction"])
    ],
)
def test_ddim(network, schedule, prediction, tmp_path, monkeypatch):
    fields = {"beta_schedule": schedule, "prediction_type": prediction}
    pipeline = ddim_folder(tmp_path / "folder", network, **DYNAMIC, **fields)
    model = model_of(tmp_path / "folder")
    assert_same(ours(model), theirs(pipeline, monkeypatch))
    model.cfg.thresholding.keep_eps = False
    assert_same(ours(model), theirs(pipeline, monkeypatch, use_clipped_model_output=True))


@pytest.mark.parametrize(
    ("fields", "eta"),
    [
        ({"clip_sample": False, "prediction_type": "v_prediction"}, 0.0),
        ({"clip_sample": True, "prediction_type": "v_prediction"}, 0.0),
        (DYNAMIC | {"sample_max_value": None, "timestep_spacing": "trailing"}, 0.0),
        (DYNAMIC | {"beta_start": 8.5e-4, "beta_end": 0.012, "set_alpha_to_one": False}, 0.7),
        (DYNAMIC | {"trained_betas": BETAS}, 0.0),
        ({"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}, 0.0),
        (DYNAMIC | {"num_train_timesteps": 4000, "beta_schedule": "squaredcos_cap_v2"}, 0.7),
        (DYNAMIC | {"steps_offset": 1, "set_alpha_to_one": False}, 0.0),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, dict) else None,
)
def test_ddim_of_every_field(network, fields, eta, tmp_path, monkeypatch):
    pipeline = ddim_folder(tmp_path / "folder", network, **fields)
    model = model_of(tmp_path / "folder")
    expected = theirs(pipeline, monkeypatch, eta=eta)
    model.cfg.sampler.eta = eta
    assert_same(ours(model), expected)


@pytest.mark.parametrize(
    "variance",
    ["fixed_small", pytest.param("fixed_small_log", marks=pytest.mark.slow), "fixed_large", "learned_range"],
)
def test_ancestral(variance, tmp_path, monkeypatch):
    channels = 2 if variance == "learned_range" else 1
    pipeline = ddpm_folder(tmp_path / "folder", unet(out_channels=channels), variance_type=variance)
    model = model_of(tmp_path / "folder")
    assert_same(ours(model), theirs(pipeline, monkeypatch))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_times(network, spacing, tmp_path):
    scheduler = ddim_folder(tmp_path / "folder", network, timestep_spacing=spacing).scheduler
    model = model_of(tmp_path / "folder")
    for steps in (3, 7, 50, 300):
        scheduler.set_timesteps(steps)
        times = make_sampler(model.cfg, model.spec).timestep_spacing(model.denoiser.schedule, steps)
        difference = (times[:-1] - 1 - scheduler.timesteps).abs()
        # A time halfway between two is rounded to even, which our count from 1 makes the other.
        assert difference.max() <= (spacing == "linspace")
        assert (difference > 0).sum() < 4


def own_sampler(folder):
    return [override for override in read_folder(folder).overrides if override.startswith("sampler")]


def test_their_own_sampler_is_the_runs(network, tmp_path):
    ddim_folder(tmp_path / "ddim", network)
    assert own_sampler(tmp_path / "ddim") == ["sampler=ddim", "sampler.steps=50", "sampler.eta=0.0"]
    ddpm_folder(tmp_path / "ddpm", network)
    assert own_sampler(tmp_path / "ddpm") == ["sampler=ancestral", "sampler.steps=null"]


def file_of(folder):
    return safetensors.torch.load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def settings_of(part):
    """A config of diffusers, with its defaults, without where and when it was written."""
    own = {name: list(value) if isinstance(value, tuple) else value for name, value in part.config.items()}
    return {name: value for name, value in own.items() if not name.startswith("_")}


def loaded(folder, caplog):
    """A pipeline as diffusers loads it, without a word."""
    diffusers.utils.logging.enable_propagation()
    with warnings.catch_warnings(action="error"), caplog.at_level(logging.WARNING):
        # By itself it would say that it goes without the package accelerate.
        pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
    diffusers.utils.logging.disable_propagation()
    assert caplog.records == []
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


RESNET = {
    "block_out_channels": (128, 256),
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "downsample_padding": 0,
    "resnet_time_scale_shift": "scale_shift",
    "attn_norm_num_groups": 32,
    "attention_head_dim": 64,
    "dropout": 0.1,
}


@pytest.mark.parametrize(
    ("make", "fields", "scheduler"),
    [
        pytest.param(ddpm_folder, {}, {}, marks=pytest.mark.slow),
        (ddim_folder, TWO_LEVELS, {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012}),
        (
            ddpm_folder,
            TWO_LEVELS | {"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6},
            {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False, "timestep_spacing": "trailing"},
        ),
        pytest.param(
            ddpm_folder,
            RESNET | {"out_channels": 2},
            {"trained_betas": BETAS, "variance_type": "learned_range", "prediction_type": "sample", **DYNAMIC},
            marks=pytest.mark.slow,
        ),
        (
            ddim_folder,
            {"attention_head_dim": None, "in_channels": 3, "out_channels": 3},
            {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "linspace"},
        ),
        (
            ddim_folder,
            TWO_LEVELS | {"block_out_channels": (32, 64), "norm_num_groups": 8},
            {"num_train_timesteps": 300, "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False},
        ),
    ],
    ids=["default", "scaled_linear", "ddpm", "adm", "zero_snr", "narrow"],
)
def test_there_and_back(make, fields, scheduler, tmp_path, caplog):
    pipeline = make(tmp_path / "folder", unet(**fields), **scheduler)
    convert(f"import={tmp_path / 'folder'}", f"out={tmp_path / 'run'}")
    convert(f"export={tmp_path / 'run'}", f"out={tmp_path / 'back'}")
    before, after = file_of(tmp_path / "folder"), file_of(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    back = loaded(tmp_path / "back", caplog)
    assert type(back) is type(pipeline)
    assert settings_of(back.unet) == settings_of(pipeline.unet)
    unused = {"clip_sample": None, "variance_type": None} if make is ddim_folder else {"clip_sample": None}
    assert settings_of(back.scheduler) | unused == settings_of(pipeline.scheduler) | unused
    assert back(batch_size=1, num_inference_steps=1).images[0].size == (8, 8)


def test_labels(tmp_path, caplog):
    """A table of theirs gets a row for "no label", and one of ours keeps it."""
    network = unet(num_class_embeds=3)
    ddpm_folder(tmp_path / "folder", network)
    assert "conditions.class_label.dropout=0.0" in read_folder(tmp_path / "folder").overrides
    convert(f"import={tmp_path / 'folder'}", f"out={tmp_path / 'run'}")
    output = convert(f"export={tmp_path / 'run'}", f"out={tmp_path / 'back'}")
    assert len(output.splitlines()) == 2
    assert "pipelines pass no labels to a network" in output
    assert "UNet2DModel.from_pretrained" in output
    assert [read_folder(tmp_path / place).num_classes for place in ("folder", "back", "back/unet")] == [3, 3, 3]
    record = json.loads((tmp_path / "back" / "langevin.json").read_text())
    assert record["spec"] == DataSpec.of_images(1, 8, 3).plain()

    back = loaded(tmp_path / "back", caplog).unet.eval()
    again = model_of(tmp_path / "back").denoiser.network
    x, t = noise().normal(), torch.tensor([0, 500, 999])
    with torch.no_grad():
        labels = torch.tensor([0, 1, 2])
        assert torch.equal(back(x, t, labels).sample, network(x, t, labels).sample)
        unconditional = back(x, t, torch.tensor([3, 3, 3])).sample
        torch.testing.assert_close(again(x, t, {"label": -torch.ones(3).long()}), unconditional, rtol=0, atol=1e-5)
        torch.testing.assert_close(again(x, t, {"label": labels}), network(x, t, labels).sample, rtol=0, atol=1e-5)
        assert not torch.allclose(unconditional, network(x, t, labels).sample, atol=1e-3)


OLD = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


@pytest.mark.parametrize("old_names", [False, True])
@pytest.mark.parametrize("at_root", [False, True])
def test_layouts(network, at_root, old_names, tmp_path):
    """google/ddpm-cifar10-32 has all files at the root, a .bin, and attention's old names."""
    ddpm_folder(tmp_path / "folder", network)
    expected = read_folder(tmp_path / "folder")
    weights = tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors"
    state = safetensors.torch.load_file(weights)
    weights.unlink()
    for new, old in OLD.items() if old_names else ():
        assert any(new in name for name in state)
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    torch.save(state, weights.with_suffix(".bin"))
    if at_root:
        for file in [*(tmp_path / "folder" / "unet").iterdir(), *(tmp_path / "folder" / "scheduler").iterdir()]:
            file.rename(tmp_path / "folder" / file.name)
            file.parent.rmdir() if not any(file.parent.iterdir()) else None
    found = read_folder(tmp_path / "folder")
    assert found._replace(weights=None) == expected._replace(weights=None)
    model = {"channels": 128, "channel_multipliers": [1], "blocks_per_level": 1}
    own, right = found.weights(model), expected.weights(model)
    assert own.keys() == right.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in right.items())


def test_safetensors_come_first(network, tmp_path):
    ddpm_folder(tmp_path / "folder", network)
    (tmp_path / "folder" / "unet" / "diffusion_pytorch_model.bin").write_text("no weights")
    assert read_folder(tmp_path / "folder").channels == 1
