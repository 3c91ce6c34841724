"""`langevin sample low_res.images=...`: small images are enlarged by a super-resolution model."""

import hashlib
import json

import numpy as np
import pytest
import torch
from helpers.commands import TINY, call
from helpers.digits import digits
from PIL import Image

import langevin
from langevin.assembly.saved import load_model
from langevin.diffusion.draws import SampleDraws, conditioning_draws
from langevin.images import from_uint8
from langevin.samplers.low_res import LowResRequests
from langevin.samplers.requests import Labels

NUMBER = 5
UNSAMPLED = ("trainer.max_steps=1",)  # of what is refused or exported alone


def trained(folder, name, *overrides):
    steps = ("trainer.max_steps=8", "optimizer.lr=1e-2", "ema.max_decay=0.5", "lr_schedule.steps=0")
    given = ("data=digits", "model=unet_small", *TINY, *steps)
    result = call("train", *given, *overrides, f"output_dir={folder}", f"name={name}")
    assert result.status == 0, result.err
    return folder / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Super-resolution with noise and without; and a model that takes no image."""
    folder = tmp_path_factory.mktemp("runs")
    low_res = ("conditions=[class_label,low_res]", "conditions.low_res.size=4")
    noise = ("conditions.low_res.augmentation=noise", "conditions.low_res.max_level=0.4")
    return {
        "noise": trained(folder, "noise", *low_res, *noise),
        "none": trained(folder, "none", *low_res, *UNSAMPLED),
        "plain": trained(folder, "plain", *UNSAMPLED),
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Digits at half of their size, as .npz with labels, and the same as a folder of files."""
    images, labels = (array[:NUMBER] for array in digits())
    halved = images.reshape(NUMBER, 4, 2, 4, 2, 1).astype(float).mean((2, 4)).round().astype(np.uint8)
    folder = tmp_path_factory.mktemp("small")
    np.savez(folder / "small.npz", arr_0=halved, arr_1=labels)
    (folder / "files").mkdir()
    for index, image in enumerate(halved):
        Image.fromarray(image[..., 0]).save(folder / "files" / f"{index}.png")
    return folder


def enlarged(run, out, *overrides):
    result = call("sample", f"checkpoint={run}", f"out={out}", "sampler.steps=3", "accelerator=cpu", *overrides)
    assert result.status == 0, result.err
    with np.load(out / "samples.npz") as arrays:
        return arrays["arr_0"], arrays.get("arr_1"), json.loads(str(arrays["record"])), result.out


def test_image_i_is_enlarged_to_sample_i(runs, small, tmp_path):
    images, labels, record, _ = enlarged(runs["noise"], tmp_path / "a", f"low_res.images={small}/small.npz")
    with np.load(small / "small.npz") as given:
        assert np.array_equal(labels, given["arr_1"]), "their own labels"
        digest = hashlib.sha256(given["arr_0"].tobytes()).hexdigest()
    assert images.shape == (NUMBER, 8, 8, 1)
    assert record["samples"]["low_res"] == {"images": digest, "noise_level": 0.0}
    grid = Image.open(tmp_path / "a" / "grid.png")
    assert grid.width > grid.height / NUMBER
    own = ("labels=3", "batch_size=2", "num_samples=3")
    part, labels, _, _ = enlarged(runs["noise"], tmp_path / "b", f"low_res.images={small}/files", *own)
    assert (len(part), labels.tolist()) == (3, [3, 3, 3])
    kept, _, _, _ = enlarged(runs["noise"], tmp_path / "c", f"low_res.images={small}/files", "labels=3")
    assert np.abs(kept[:3].astype(int) - part).max() <= 1
    level, _, record, _ = enlarged(
        runs["noise"], tmp_path / "d", f"low_res.images={small}/small.npz", "low_res.noise_level=0.3"
    )
    assert record["samples"]["low_res"]["noise_level"] == 0.3
    assert np.abs(level.astype(int) - images).max() > 1


def test_samples_with_another_level_are_kept_apart(runs, small, tmp_path):
    options = (f"low_res.images={small}/small.npz",)
    enlarged(runs["noise"], tmp_path, *options)
    _, _, _, out = enlarged(runs["noise"], tmp_path, *options)
    assert "is done" in out
    other = call(
        "sample",
        f"checkpoint={runs['noise']}",
        f"out={tmp_path}",
        "sampler.steps=3",
        "accelerator=cpu",
        *options,
        "low_res.noise_level=0.1",
    )
    assert "samples.low_res.noise_level: 0.0 there, 0.1 now" in other.err


def test_python_makes_the_same(runs, small, tmp_path):
    options = [f"low_res.images={small}/small.npz", "low_res.noise_level=0.2"]
    images, _, _, _ = enlarged(runs["noise"], tmp_path, *options)
    samples = langevin.load(runs["noise"]).sample(steps=3, device="cpu", overrides=options)
    assert np.array_equal(samples.samples, images)


def test_an_evaluation_compares_with_held_out_originals(runs, tmp_path):
    """Its values are those of the samples that the same images, made small by hand, are enlarged to."""
    originals, labels = (array[-297:][:6] for array in digits())
    halves = originals.reshape(6, 4, 2, 4, 2, 1).astype(float).mean((2, 4))
    np.savez(tmp_path / "small.npz", arr_0=halves.round().astype(np.uint8), arr_1=labels)
    images, _, _, _ = enlarged(runs["noise"], tmp_path / "made", f"low_res.images={tmp_path / 'small.npz'}")
    given = (f"checkpoint={runs['noise']}", "sampler.steps=3", "num_samples=6", f"out={tmp_path}", "accelerator=cpu")
    cache = f"loader.cache_dir={tmp_path / 'cache'}"
    found = call("evaluate", *given, cache, "metrics=[psnr,consistency,energy_distance]")
    assert found.status == 0, found.err
    held = json.loads((tmp_path / "metrics.json").read_text())
    gap = images.astype(float) - originals
    psnr = 10 * np.log10(255**2 / (gap**2).mean((1, 2, 3))).mean()
    assert held["metrics"]["psnr"] == pytest.approx(psnr, rel=1e-12)
    off = gap.reshape(6, 4, 2, 4, 2).mean((2, 4))
    assert held["metrics"]["consistency"] == pytest.approx(np.sqrt((off**2).mean((1, 2))).mean(), rel=1e-12)
    assert held["protocol"]["metrics"]["consistency"]["settings"]["operator"]["operators"][0]["factor"] == 2
    assert held["reference"]["number"] == 1500, "energy_distance goes by training images"
    alone = call("evaluate", *given, cache, "metrics=[psnr]", "num_samples=6")
    assert alone.status == 0, alone.err
    held = json.loads((tmp_path / "metrics.json").read_text())
    assert (held["metrics"]["psnr"], held["reference"]["number"]) == (pytest.approx(psnr), 6)


@pytest.mark.parametrize(
    ("run", "overrides", "words"),
    [
        ("noise", ["num_samples=400"], "num_samples: is 400; allowed: at most 297, the test samples"),
        ("noise", ["operators=[average]"], "operators: goes with restoration=NAME"),
        ("noise", ["metrics=[ssim]", "num_samples=6"], "metrics.ssim compares windows of 11 x 11 pixels"),
        ("plain", ["num_samples=6"], "metrics.psnr needs the target of each sample"),
        (
            "noise",
            ["metrics=[consistency]", "operators=[average]", "operators.average.factor=3", "num_samples=6"],
            "operators.average.factor is 3; allowed for images of 8 x 8 pixels: 2, 4, 8",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value[:10],
)
def test_an_evaluation_reports_a_mistake(runs, tmp_path, run, overrides, words):
    given = (f"checkpoint={runs[run]}", "metrics=[psnr]", "accelerator=cpu", f"loader.cache_dir={tmp_path / 'cache'}")
    result = call("evaluate", *given, *overrides, f"out={tmp_path / 'out'}")
    assert result.status == 1
    assert words in result.err
    assert "Traceback" not in result.err


def test_its_noise_is_of_the_seed_and_the_sample_alone(runs):
    """And of a stream of its own: the noise of what is sampled stays as it is."""
    model = load_model(runs["noise"] / "checkpoints" / "last.ckpt")
    condition = model.denoiser.network.condition.parts[1]
    stored = (np.arange(3 * 16, dtype=np.uint8) * 5).reshape(3, 4, 4, 1)
    requests = LowResRequests(Labels(10), stored, None, 0.3, condition, langevin.load(runs["noise"]).modality)
    columns = requests.model_cond(model.denoiser, [2, 0], 7, "cpu")
    assert columns["low_res_level"].tolist() == pytest.approx([0.3, 0.3])
    z = from_uint8(torch.from_numpy(stored[[2, 0]])).movedim(-1, 1)
    noise = (columns["low_res"] - 0.91**0.5 * z) / 0.3
    torch.testing.assert_close(noise, conditioning_draws(7, [2, 0], (1, 4, 4)).normal(), rtol=0, atol=1e-5)
    assert (noise - SampleDraws(7, [2, 0], (1, 4, 4)).normal()).abs().max() > 0.1


def test_is_exported_as_weights_alone(runs, tmp_path):
    wrong = call("convert", f"export={runs['none']}", f"out={tmp_path / 'pipe'}")
    assert wrong.status == 1
    assert "allowed: a model that takes no other image than the one it makes, or out=NAME.safetensors" in wrong.err
    assert call("convert", f"export={runs['none']}", f"out={tmp_path / 'weights.safetensors'}").status == 0


@pytest.mark.parametrize(
    ("run", "overrides", "words"),
    [
        ("none", [], "low_res.images: must be given: images of 4 x 4 pixels (.npz, folder or zip)"),
        ("none", ["low_res.images=nowhere"], "low_res.images=nowhere"),
        ("none", ["low_res.images={large}"], "images of (height, width, channels) (8, 8, 1); allowed: (4, 4, 1)"),
        (
            "none",
            ["low_res.images={small}", "low_res.noise_level=0.1"],
            "low_res.noise_level: is 0.1; allowed: 0, since the model was trained with augmentation=none",
        ),
        (
            "noise",
            ["low_res.images={small}", "low_res.noise_level=0.5"],
            "low_res.noise_level: is 0.5; allowed: 0 to 0.4, the largest that the model was trained with",
        ),
        ("noise", ["low_res.noise_level=1.5"], "low_res.noise_level: is 1.5; allowed: a number"),
        ("plain", ["low_res.images={small}"], "the model is not trained with conditions=[low_res]: leave it out"),
        ("plain", ["low_res.noise_level=0.1"], "low_res.noise_level: is 0.1; allowed with low_res.images"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value[:20],
)
def test_a_mistake_is_reported(runs, small, tmp_path, run, overrides, words):
    np.savez(tmp_path / "large.npz", arr_0=np.zeros((2, 8, 8, 1), np.uint8))
    places = {"small": small / "small.npz", "large": tmp_path / "large.npz"}
    given = [override.format(**places) for override in overrides]
    result = call("sample", f"checkpoint={runs[run]}", f"out={tmp_path / 'out'}", *given, "accelerator=cpu")
    assert result.status == 1
    assert words in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "out" / "samples.npz").exists()
