"""diffusers' LDMSuperResolutionPipeline becomes a run that makes the same images, and such a run becomes one again."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LDMSuperResolutionPipeline
from diffusers.pipelines.latent_diffusion import pipeline_latent_diffusion_superresolution as module
from helpers.autoencoders import autoencoder
from helpers.commands import call
from helpers.pipelines import unet
from PIL import Image

import langevin
from langevin.diffusion.draws import SampleDraws

pytestmark = pytest.mark.e2e

NUMBER, SIDE, STEPS = 4, 4, 5
SIZES = {"in_channels": 6, "out_channels": 3, "sample_size": SIDE}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Of random weights, whose outputs differ, with a scale that the pipeline does not look at; and its folder."""
    scheduler = DDIMScheduler(clip_sample=False, beta_schedule="scaled_linear", timestep_spacing="trailing")
    made = LDMSuperResolutionPipeline(autoencoder("vq", latent_channels=3), unet(**SIZES), scheduler)
    torch.nn.init.normal_(made.vqvae.quantize.embedding.weight)
    torch.nn.init.normal_(made.vqvae.decoder.conv_out.weight, std=0.1)
    torch.nn.init.normal_(made.unet.conv_in.weight, std=0.2)
    folder = tmp_path_factory.mktemp("pipeline") / "folder"
    made.save_pretrained(folder)
    assert json.loads((folder / "vqvae" / "config.json").read_text())["scaling_factor"] == 0.18215
    return made, folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Images to be enlarged, and the file that holds them."""
    images = np.random.default_rng(0).integers(256, size=(NUMBER, SIDE, SIDE, 3), dtype=np.uint8)
    file = tmp_path_factory.mktemp("small") / "small.npz"
    np.savez(file, arr_0=images)
    return images, file


def theirs(pipeline, images, monkeypatch):
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: SampleDraws(0, range(NUMBER), (3, 4, 4)).normal())
    pipeline.set_progress_bar_config(disable=True)
    image = torch.from_numpy(images).movedim(-1, 1) / 127.5 - 1
    made = pipeline(image=image, num_inference_steps=STEPS, output_type="np").images
    return np.round(255 * made).astype(int)


def ours(run, file):
    return langevin.load(run).sample(NUMBER, steps=STEPS, device="cpu", overrides=[f"low_res.images={file}"])


def converted(*overrides):
    result = call("convert", *overrides)
    assert result.status == 0, result.err


@pytest.mark.slow
def test_makes_the_same_images_and_goes_back(pipeline, small, tmp_path, monkeypatch):
    """Against diffusers; then what is exported, against the same; with its images in the other order they differ."""
    (original, folder), (images, file) = pipeline, small
    expected = theirs(original, images, monkeypatch)
    assert expected.shape == (NUMBER, 16, 16, 3)
    assert expected.std() > 20, "else next to nothing would be compared"
    assert np.abs(theirs(original, images[::-1].copy(), monkeypatch) - expected).mean() > 1
    converted(f"import={folder}", f"out={tmp_path / 'run'}")
    made = ours(tmp_path / "run", file)
    assert np.abs(made.samples.astype(int) - expected).max() <= 1
    converted(f"export={tmp_path / 'run'}", f"out={tmp_path / 'again'}")
    back = LDMSuperResolutionPipeline.from_pretrained(tmp_path / "again")
    assert np.abs(theirs(back, images, monkeypatch) - expected).max() <= 1


@pytest.mark.slow
def test_an_imported_run_is_compared_with_originals(pipeline, tmp_path):
    folder = pipeline[1]
    converted(f"import={folder}", f"out={tmp_path / 'run'}")
    originals = np.random.default_rng(1).integers(256, size=(6, 16, 16, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for index, image in enumerate(originals):
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
    data = ("data=image_folder", f"data.path={tmp_path / 'images'}", "data.image_size=16")
    given = (f"checkpoint={tmp_path / 'run'}", "num_samples=4", "sampler.steps=2", "accelerator=cpu", f"out={tmp_path}")
    found = call("evaluate", *given, *data, f"loader.cache_dir={tmp_path}", "metrics=[psnr,ssim,consistency]")
    assert found.status == 0, found.err
    held = json.loads((tmp_path / "metrics.json").read_text())
    assert set(held["metrics"]) == {"psnr", "ssim", "consistency"}
    assert held["protocol"]["metrics"]["consistency"]["settings"]["operator"]["operators"][0]["factor"] == 4


def edited(folder, file, **fields):
    config = json.loads((folder / file).read_text()) | fields
    (folder / file).write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("file", "fields", "words"),
    [
        ("unet/config.json", {"in_channels": 5}, "in_channels is 5; allowed: the latents', and as many of an image"),
        ("unet/config.json", {"num_class_embeds": 3}, "has classes, which LDMSuperResolutionPipeline does not pass on"),
        ("vqvae/config.json", {"in_channels": 1, "out_channels": 1}, "in_channels is 1; allowed: 3, as latents have"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "EulerDiscreteScheduler"},
            "with which LDMSuperResolutionPipeline scales the low-resolution image like a noisy one; allowed: another",
        ),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_cannot_be_imported(pipeline, tmp_path, file, fields, words):
    shutil.copytree(pipeline[1], tmp_path / "folder")
    edited(tmp_path / "folder", file, **fields)
    result = call("convert", f"import={tmp_path / 'folder'}", f"out={tmp_path / 'run'}")
    assert result.status == 1
    assert words in result.err
    assert "Traceback" not in result.err
