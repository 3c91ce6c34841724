"""`langevin sample cascade=[BASE,UP]`: each stage is the command of its model, on what the one before has made."""

import hashlib
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.commands import TINY, call
from torch import nn

import langevin
from langevin.assembly.cascade import SEED, truncation_mistakes
from langevin.images import to_uint8
from langevin.interrupt import Interrupted

REFUSED = ("trainer.max_steps=1",)  # of what is refused, no sample is looked at
STEPS = ("trainer.max_steps=8", "optimizer.lr=1e-2", "ema.max_decay=0.5", "lr_schedule.steps=0")
SAMPLING = ("num_samples=5", "batch_size=2", "sampler.steps=3", "accelerator=cpu")
UP = ("conditions=[class_label,low_res]", "conditions.low_res.size=4", "conditions.low_res.augmentation=noise")


def trained(folder, name, *overrides):
    given = ("data=digits", "model=unet_small", *TINY, *STEPS, *overrides)
    result = call("train", *given, f"output_dir={folder}", f"name={name}")
    assert result.status == 0, result.err
    return folder / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "base": trained(folder, "base", "data.image_size=4", "conditions=[class_label]"),
        "plain": trained(folder, "plain", "data.image_size=4", *REFUSED),
        "large": trained(folder, "large", "conditions=[class_label]", *REFUSED),
        "up": trained(folder, "up", *UP),
        "unnoised": trained(folder, "unnoised", *UP[:2], *REFUSED),
    }


def sampled(out, *overrides):
    result = call("sample", f"out={out}", *SAMPLING, *overrides)
    assert result.status == 0, result.err
    with np.load(out / "samples.npz") as arrays:
        return arrays["arr_0"], arrays["arr_1"], json.loads(str(arrays["record"])), result.out


@pytest.mark.slow
def test_each_stage_is_the_command_of_its_model(runs, tmp_path):
    chain = f"cascade=[{runs['base']},{runs['up']}]"
    images, labels, record, _ = sampled(tmp_path / "chain", chain, "low_res.noise_level=0.2", "seed=3", "png=true")
    assert images.shape == (5, 8, 8, 1)
    assert labels.tolist() == [0, 1, 2, 3, 4]
    assert record["samples"]["low_res"]["noise_level"] == 0.2
    small, _, _, _ = sampled(tmp_path / "small", f"checkpoint={runs['base']}", "seed=3")
    with np.load(tmp_path / "chain" / "stages" / "0" / "samples.npz") as arrays:
        assert np.array_equal(arrays["arr_0"], small)
    by_hand = (f"checkpoint={runs['up']}", f"low_res.images={tmp_path / 'small'}", "low_res.noise_level=0.2")
    again, _, _, _ = sampled(tmp_path / "again", *by_hand, f"seed={3 + SEED}")
    assert np.array_equal(again, images)
    assert len(list((tmp_path / "chain" / "png").iterdir())) == 5
    assert not (tmp_path / "chain" / "stages" / "0" / "png").exists()
    _, labels, _, _ = sampled(tmp_path / "threes", chain, "labels=3")
    assert labels.tolist() == [3] * 5


@pytest.mark.slow
def test_a_truncated_stage_hands_on_noisy_images(runs, tmp_path):
    chain, noisy = f"cascade=[{runs['base']},{runs['up']}]", ("low_res.noise_level=0.2", "low_res.truncated=true")
    images, labels, record, _ = sampled(tmp_path, chain, *noisy)
    assert images.shape == (5, 8, 8, 1)
    assert labels.tolist() == [0, 1, 2, 3, 4]
    given = record["samples"]["low_res"]
    assert given["truncated"] is True
    assert 0.19 < given["noise_level"] <= 0.2
    with (
        np.load(tmp_path / "stages" / "0" / "samples.npz") as shown,
        np.load(tmp_path / "stages" / "0" / "noisy.npz") as handed,
    ):
        own = json.loads(str(shown["record"]))["samples"]
        assert own["truncated"] == given["noise_level"]
        assert own["evaluations"] == 3, "the last of three steps is shorter"
        z_s = handed["arr_0"]
        assert np.array_equal(to_uint8(torch.from_numpy(z_s)).movedim(1, -1).numpy(), shown["arr_0"])
        assert given["images"] == hashlib.sha256(z_s.tobytes()).hexdigest()
    clean, _, _, _ = sampled(tmp_path / "clean", chain, noisy[0])
    assert not np.array_equal(clean, images)
    from_python = langevin.cascade([runs["base"], langevin.load(runs["up"])])
    options = {"noise_level": 0.2, "steps": 3, "batch_size": 2, "device": "cpu"}
    for truncated, found in ((True, images), (False, clean)):
        made = from_python.sample(5, truncated=truncated, **options)
        assert np.array_equal(made.samples, found)
        assert made.labels.tolist() == labels.tolist()
    assert [small.samples.shape for small in made.before] == [(5, 4, 4, 1)]


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        pytest.param(0, (), id="first"),
        pytest.param(1, (), id="second", marks=pytest.mark.slow),
        pytest.param(0, ("low_res.noise_level=0.2", "low_res.truncated=true"), id="truncated", marks=pytest.mark.slow),
    ],
)
def test_killed_in_a_stage_it_resumes_there(runs, tmp_path, monkeypatch, stage, options):
    chain = (f"cascade=[{runs['base']},{runs['up']}]", *options)
    whole, _, _, _ = sampled(tmp_path / "whole", *chain)
    from langevin.samplers.store import SampleStore

    put, stored = SampleStore.put, []

    def stop_at_the_second(self, indices, arrays):
        put(self, indices, arrays)
        stored.append(indices)
        if len(stored) == 3 * stage + 2:  # of three batches a stage
            raise Interrupted("here")

    with monkeypatch.context() as patched:
        patched.setattr(SampleStore, "put", stop_at_the_second)
        assert call("sample", f"out={tmp_path / 'out'}", *SAMPLING, *chain).status != 0
    assert (tmp_path / "out" / "stages" / "0" / "samples.npz").exists() == (stage == 1)
    made = []
    monkeypatch.setattr(SampleStore, "put", lambda self, *given: (made.append(given), put(self, *given)))
    resumed, _, _, printed = sampled(tmp_path / "out", *chain)
    assert len(made) == 6 - (3 * stage + 2), "what was finished is not made again"
    assert ("is done" in printed) == (stage == 1)
    assert np.array_equal(resumed, whole)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["cascade=[{up}]"], "allowed: a list of at least two runs"),
        (["cascade=[{base},{up}]", "checkpoint={up}"], "checkpoint: is given beside cascade; leave one of them out"),
        (["cascade=[{base},{up}]", "low_res.images={base}"], "low_res.images: is given beside cascade"),
        (["cascade=[{base},nowhere]"], "cascade"),
        (["cascade=[{up},{base}]"], "which enlarges images itself; allowed: a model without low_res first"),
        (["cascade=[{base},{large}]"], "allowed: there a model with conditions=[low_res]"),
        (["cascade=[{large},{up}]"], "makes images of (channels, height, width) (1, 8, 8), and"),
        (["cascade=[{plain},{up}]"], "is conditioned on 10 classes, and"),
        (["cascade=[{base},{up}]", "low_res.noise_level=0.9"], "low_res.noise_level: is 0.9; allowed: 0 to 0.5"),
        (["checkpoint={up}", "low_res.truncated=true"], "low_res.truncated: is true; allowed with cascade=[BASE,UP]"),
        (["cascade=[{base},{up}]", "low_res.truncated=true"], "low_res.noise_level: is 0.0, where stages stop"),
        (
            ["cascade=[{base},{unnoised}]", "low_res.truncated=true", "low_res.noise_level=0.1"],
            "low_res.truncated: is true; allowed with models trained with augmentation=noise",
        ),
        (
            ["cascade=[{base},{up}]", "low_res.truncated=true", "low_res.noise_level=0.001"],
            "low_res.noise_level: is 0.001, where ",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_reported(runs, tmp_path, overrides, words):
    given = [override.format(**runs) for override in overrides]
    result = call("sample", f"out={tmp_path / 'out'}", *given, *SAMPLING)
    assert result.status == 1
    assert words in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir()), "not even a first stage"


@pytest.mark.parametrize(
    ("stages", "options", "words"),
    [
        (["base"], {}, "stages: is "),
        (["base", "large"], {}, "stages: has "),
        (["base", "up"], {"truncated": True}, "noise_level: is 0.0, where stages stop"),
        (["base", "up"], {"noise_level": 0.7}, "noise_level: is 0.7; allowed: 0 to 0.5"),
        (["base", "up"], {"overrides": ["low_res.images=x"]}, "'low_res.images=x' cannot be set here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list | dict) else "",
)
def test_python_reports_a_mistake_by_the_parameter(runs, stages, options, words):
    with pytest.raises(langevin.UserError, match=re.escape(words)):
        langevin.cascade([runs[name] for name in stages]).sample(2, steps=2, device="cpu", **options)


def test_noise_in_latents_is_not_handed_on():
    latent, up = (SimpleNamespace(codec=SimpleNamespace(record=lambda known=known: known)) for known in ({"a": 1}, {}))
    up.denoiser = SimpleNamespace(network=nn.Identity())
    [(path, text)] = truncation_mistakes(0.1, ["latent", "up"], [latent, up])
    assert path == "low_res.truncated"
    assert text.startswith("is true, but latent diffuses latents")
