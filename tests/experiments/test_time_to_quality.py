"""The benchmark of experiments/time_to_quality, at toy sizes."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.commands import CLASSIFIER, call
from helpers.digits import digits
from PIL import Image

from langevin.errors import UserError

pytest.importorskip("diffusers")
pytest.importorskip("matplotlib")
from experiments.time_to_quality import __main__ as benchmark
from experiments.time_to_quality import floor, measuring, ours, report, training, tried
from experiments.time_to_quality.peers import Diffusers

UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "add_attention": True,
    "attention_head_dim": 8,
}


def images():
    return torch.tensor(digits()[0][:40]).movedim(-1, 1).float() / 127.5 - 1


@pytest.fixture
def colours(tmp_path):
    """The options of 64 colour images of 16x16, which are held out as well: as many as there are values of `pixels`."""
    for split in ("train", "test"):
        for number, (digit, label) in enumerate(zip(*(each[:64] for each in digits()), strict=True)):
            place = tmp_path / split / str(label) / f"{number:02}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            grey = digit[..., 0].repeat(2, 0).repeat(2, 1)
            Image.fromarray(np.stack([grey, 255 - grey, grey // 2], -1)).save(place)
    paths = [f"data.path={tmp_path / 'train'}", f"data.test_path={tmp_path / 'test'}"]
    return ["data=cifar10", *paths, "data.image_size=16", "data.flip=false"]


def row(who, cpu_seconds, fd, seed=0):
    cost = {"cpu_seconds": cpu_seconds, "steps": 1, "images": 16, "sampler": "ddim", "nfe": 50}
    return {"seed": seed, "who": who, "kept": "1", **cost, "fd": fd, "precision": 0.5, "recall": 0.5}


def test_a_peer_resumes_where_it_was(tmp_path):
    peer = Diffusers(images(), 0, UNET, epochs=10)
    assert peer.total == 30, "three batches an epoch, the last of them smaller"
    training.Course(peer, tmp_path, (0.001, 0.002)).advance(1.0)
    assert peer.cpu >= 0.002
    kept = torch.load(tmp_path / "0.002.pt", weights_only=True)
    assert (kept["steps"], kept["images"]) == (peer.steps, 16 * peer.steps)

    again = Diffusers(images(), 1, UNET, epochs=10)
    training.Course(again, tmp_path, (0.001, 0.002))
    assert (again.steps, again.cpu, again.loop.rate.last_epoch) == (peer.steps, peer.cpu, peer.steps)
    for name, weight in again.ema_weights().items():
        assert torch.equal(weight, kept["weights"][name])
    for mine, its in zip(again.network.parameters(), peer.network.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_a_peer_stops_where_its_schedule_ends():
    peer = Diffusers(images(), 0, UNET, epochs=1)
    peer.advance(1e9)
    assert peer.steps == 3


@pytest.mark.parametrize("is_other", [False, True])
def test_the_networks_are_the_same(is_other, colours):
    from diffusers import UNet2DModel

    task = (*colours, "model.attention_resolutions=[8]") if is_other else ()
    cfg = measuring.config_of("diffusers", task)
    data = training.data_of(cfg)
    network = UNet2DModel(**training.unet_of_diffusers(cfg, data.spec.shape)).eval()
    own = training.our_network(ours.config(task), data)
    spared = 5 * 2 * 64**2 * 16**2 if is_other else 0  # of its enlargement of 8x8, see Upsample
    wanted = training.flops(network, data.spec.shape) - spared
    assert training.flops(own, data.spec.shape, None) == wanted > 1e6
    denoiser = measuring.denoiser_of("diffusers", cfg, network.state_dict())
    x, t = torch.randn(3, *data.spec.shape), torch.tensor(400.0, dtype=torch.float64)
    assert x.shape[1:] == ((3, 16, 16) if is_other else (1, 8, 8))
    with torch.no_grad():
        eps = denoiser(x, t).eps
        assert torch.allclose(eps, network(x, 399).sample, atol=1e-5)  # theirs counts from 0


@pytest.mark.slow
def test_lucidrains_model_predicts_the_same():
    code = pytest.importorskip("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    cfg = measuring.config_of("lucidrains")
    data = training.data_of(cfg)
    wanted = training.flops(training.our_network(ours.config(), data), data.spec.shape, None)
    unet = code.Unet(**training.unet_of_lucidrains(cfg, data.spec.shape, wanted)).eval()
    assert training.flops(unet, data.spec.shape) == pytest.approx(wanted, rel=0.1)
    diffusion = code.GaussianDiffusion(unet, image_size=8)
    denoiser = measuring.denoiser_of("lucidrains", cfg, unet.state_dict())
    x, t = torch.randn(3, 1, 8, 8), torch.tensor(400.0, dtype=torch.float64)
    with torch.no_grad():
        its = diffusion.model_predictions(x, torch.full((3,), 399))
        assert torch.allclose(denoiser(x, t).x, its.pred_x_start, atol=1e-4)


def test_our_clock_leaves_out_the_turns_of_others(monkeypatch):
    def turn(cpu):
        turns.append(cpu)

    turns = []
    monkeypatch.setattr(ours, "time", SimpleNamespace(process_time=lambda: time.process_time() + 1000 * len(turns)))
    weights, cpu = ours.train(["trainer.max_steps=3", "batch_size=4"], turn, every=2)
    assert len(turns) == 2, "after the second step and after the last"
    assert 0 < turns[0] < turns[1] == cpu < 1000
    assert all(weight.isfinite().all() for weight in weights.values())


@pytest.mark.slow
def test_other_images_are_compared_by_the_same_commands(tmp_path, colours):
    out, classifier = tmp_path / "out", tmp_path / "outputs" / "classifier"
    trained = call("train", *CLASSIFIER, *colours, "name=classifier", f"output_dir={classifier.parent}")
    assert trained.status == 0, trained.err
    task = [*colours, "model.channels=8", "batch_size=4"]
    asked = ["--samples", "64", "--results", str(tmp_path / "results"), "--task", *task]
    sizes = ["--seeds", "0", "--peers", "diffusers", "--marks", "0.01", "--lengths", "2", "--epochs", "2"]
    for _ in range(2):  # what is there is kept
        benchmark.main([str(out), str(classifier), *sizes, "--samplers", "dpm_solver_2m", *asked])
        rows = json.loads((tmp_path / "results" / "results.json").read_text())
        assert [(each["who"], each["sampler"], each["nfe"]) for each in rows] == [
            ("diffusers", "dpm_solver_2m", 20),
            ("langevin", "dpm_solver_2m", 20),
        ]
    assert (rows[1]["steps"], rows[1]["images"]) == (2, 8)
    assert training.make_peer("diffusers", 0, task, 2).total == 8, "two epochs of four batches"
    assert all(each["fd"] > 0.01 for each in rows)

    floor.main([str(classifier), "--draws", "1", *asked])
    (same,) = json.loads((tmp_path / "results" / "floor.json").read_text())
    assert same == {"fd": pytest.approx(0, abs=1e-3), "precision": 1, "recall": 1}, "here they are the training images"
    with pytest.raises(UserError, match="--samples 65: there are 64 held-out images"):
        floor.main([str(classifier), "--samples", "65", "--task", *task])

    for seeds in (["0"], ["0", "1"]):  # what is there is kept
        changed = ["Muon", "--seeds", *seeds, "--other", str(classifier), *asked, "trainer.max_steps=2"]
        tried.main([str(classifier), *changed])
    runs = json.loads((tmp_path / "results" / "tried.json").read_text())["Muon"]
    assert {"optimizer=muon", "optimizer.lr=4e-3", "trainer.max_steps=2", "seed=1"} <= set(runs["1"]["overrides"])
    assert "optimizer=adamw" not in runs["1"]["overrides"], "of an option that is given twice the last one counts"
    assert runs["0"]["fd_other"] == runs["0"]["fd"] != runs["1"]["fd"], "the other classifier is the same"
    assert runs["0"]["fd_pixels"] not in (runs["0"]["fd"], 0)
    header, _, line = (tmp_path / "results" / "tried.md").read_text().splitlines()
    assert header.startswith("| change | seeds | CPU s |")
    assert line.startswith("| Muon: `optimizer=muon")
    assert " | 2 | " in line


def test_what_is_reported(tmp_path):
    rows = [row("langevin", 30, 4.0), row("langevin", 5, 100.0), row("langevin", 60, 1.0), row("diffusers", 600, 5.0)]
    report.write(tmp_path, [*rows, row("lucidrains", 600, 0.5)])
    written = (tmp_path / "results.md").read_text()
    assert "diffusers, seed 0, ddim: 5.00 after 600 CPU s; reached by langevin in 30.0 CPU s or less" in written
    assert "lucidrains, seed 0, ddim: 0.50 after 600 CPU s; not reached" in written
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
