"""What is read of a GPU without one."""

import json

import pytest
import torch
from experiments.speed import gpu_path
from experiments.speed.fake_gpu import GPU, Attention, backward, fake_gpu
from networks.network_helpers import images, preset, randomize, tiny
from torch import nn

from langevin.networks.blocks.residual import ResidualBlock

PRECISIONS = gpu_path.PRECISIONS
EDM2 = {"channels": 32, "channel_multipliers": [1, 2], "blocks_per_level": 1, "head_channels": 16}


def test_the_backward_pass_is_that_of_torchs_engine():
    network = tiny(residual_resampling=True)
    randomize(network)
    gradients = []
    for act in (torch.Tensor.backward, backward):
        network.zero_grad()
        act(network(images(2, 8)[:, :2], torch.tensor([1.0, 900.0])).square().mean())
        gradients.append([weight.grad for weight in network.parameters()])
    for expected, ours in zip(*gradients, strict=True):
        assert torch.equal(expected, ours)
        assert expected.stride() == ours.stride()


def counted(monkeypatch, make, precision, **options):
    monkeypatch.setattr(gpu_path, "preset", lambda name, size: make())
    return gpu_path.step("", 8, 2, precision, **options)


class OneBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 3, 1)
        self.block = ResidualBlock(32, 32, None, 0.1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x, c_noise):
        return self.last(self.block(self.first(x)))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_block_is_given_channels_innermost(monkeypatch, precision):
    found = counted(monkeypatch, OneBlock, precision)
    assert (found["innermost"], found["convolutions"]) == (3, 3)
    assert found["phases"]["forward"]["inside"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_convolution_of_the_unet_is_given_channels_innermost(monkeypatch, precision):
    """On tensors of a GPU, whose normalization returns the usual layout."""
    found = counted(monkeypatch, lambda: tiny(in_channels=3, out_channels=3, dropout=0.1), precision)
    assert found["innermost"] == found["convolutions"] > 10
    phases = found["phases"]
    assert phases["forward"]["inside"] == 0
    assert sum(phase["waits"] for phase in phases.values()) == 0
    assert all(phases[name]["kernels"] < 10 for name in ("clipping", "optimizer", "EMA"))
    assert (phases["forward"]["casts"] > 0) == (precision == "bf16-mixed")


@pytest.mark.slow
def test_without_what_is_ours_torch_transposes(monkeypatch):
    found = counted(monkeypatch, lambda: tiny(in_channels=3, out_channels=3), "32-true", as_torch=True)
    assert found["innermost"] < found["convolutions"] / 2
    assert found["phases"]["forward"]["inside"] == found["convolutions"] - found["innermost"]


class Normalized(nn.Module):
    """As torch does by itself."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 3, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x, c_noise):
        return self.last(self.norm(self.first(x)))


def test_a_layout_that_is_lost_is_counted(monkeypatch):
    found = counted(monkeypatch, Normalized, "32-true")
    assert (found["innermost"], found["convolutions"]) == (0, 1)
    assert found["phases"]["forward"]["inside"] == 1


@pytest.mark.slow
def test_edm2_runs_in_mixed_precision(monkeypatch):
    """Its sums ask for two tensors of one type, and autocast on a GPU makes float32 of what is upsampled."""
    cls, own = preset("edm2_xs")
    facts = {"in_channels": 3, "out_channels": 3, "image_size": 8}
    found = counted(monkeypatch, lambda: cls(**facts, **own | EDM2 | {"attention_resolutions": [4]}), "bf16-mixed")
    assert found["innermost"] == found["convolutions"] > 10
    assert found["phases"]["magnitudes"]["kernels"] > 10


class Plain(nn.Module):
    """Of one convolution torch keeps the input; of the loss both that are compared."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)

    def forward(self, x, c_noise):
        return self.conv(x)


def test_memory_is_what_torch_keeps(monkeypatch):
    monkeypatch.setattr(gpu_path, "preset", lambda name, size: Plain())
    found = gpu_path.memory("", 8, "32-true")
    assert found["weights"] == 4 * 9
    assert found["sample"] == 3 * 4 * 3 * 8 * 8
    assert found["fixed"] == 5 * 4 * 9
    assert found["largest"][24] == int((24e9 - gpu_path.SPARE - found["fixed"]) / found["sample"])


def test_attention_is_that_of_a_gpu():
    with fake_gpu("32-true"):
        query = torch.empty(2, 1, 16, 8, device=GPU, requires_grad=True)
        assert nn.functional.scaled_dot_product_attention(query, query, query).shape == query.shape
        with pytest.raises(AssertionError, match="masks"):
            nn.functional.scaled_dot_product_attention(query, query, query, torch.ones(1, device=GPU))
    assert not torch.is_autocast_enabled("cuda")
    plain = torch.randn(2, 3)
    with Attention():
        assert torch.equal(plain + plain, 2 * plain)


def test_a_sampler_waits_for_nothing_and_one_that_does_is_seen(monkeypatch):
    found = gpu_path.sampling("ddim")
    assert found["waits"] == 0
    assert 1 < found["to the device"] < found["kernels"]
    monkeypatch.setattr(gpu_path.Passing, "forward", lambda self, x, c_noise, cond=None: x * float(x.mean()))
    with pytest.raises(RuntimeError, match="meta"):
        gpu_path.sampling("ddim")


@pytest.mark.slow
def test_results_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_path, "TRACED", {"mlp": {}})
    gpu_path.main(["--only", "graphs", f"--out={tmp_path}"])
    found = json.loads((tmp_path / "gpu_path.json").read_text())
    assert found["graphs"]["mlp"]["breaks in the whole"] == 0
    assert "| `mlp` |" in (tmp_path / "gpu_path.md").read_text()
    monkeypatch.setattr(gpu_path, "OPTIMIZERS", ("adamw",))
    monkeypatch.setattr(gpu_path, "preset", lambda name, size: Plain())
    gpu_path.main(["--only", "optimizers", f"--out={tmp_path}"])
    found = json.loads((tmp_path / "gpu_path.json").read_text())
    assert found["optimizers"]["adamw"]["kernels"] == 2
    assert "mlp" in found["graphs"], "parts that were not asked for are kept"
