"""The benchmark of experiments/time_to_quality, at toy sizes."""

import time
from types import SimpleNamespace

import pytest
import torch
from helpers.digits import digits

pytest.importorskip("diffusers")
pytest.importorskip("matplotlib")
from experiments.time_to_quality import measuring, ours, report, training
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


def test_the_networks_are_the_same():
    from diffusers import UNet2DModel

    cfg = measuring.config_of("diffusers")
    data = training.data_of(cfg)
    network = UNet2DModel(**training.unet_of_diffusers(cfg, data.spec.shape)).eval()
    own = training.our_network(ours.config(), data)
    assert training.flops(network, data.spec.shape) == training.flops(own, data.spec.shape, None) > 1e6
    denoiser = measuring.denoiser_of("diffusers", cfg, network.state_dict())
    x, t = torch.randn(3, 1, 8, 8), torch.tensor(400.0, dtype=torch.float64)
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


def test_what_is_reported(tmp_path):
    rows = [row("langevin", 30, 4.0), row("langevin", 5, 100.0), row("langevin", 60, 1.0), row("diffusers", 600, 5.0)]
    report.write(tmp_path, [*rows, row("lucidrains", 600, 0.5)])
    written = (tmp_path / "results.md").read_text()
    assert "diffusers, seed 0, ddim: 5.00 after 600 CPU s; reached by langevin in 30.0 CPU s or less" in written
    assert "lucidrains, seed 0, ddim: 0.50 after 600 CPU s; not reached" in written
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
