"""Training by DDP and in shards, with NCCL and one process, is training without."""

import copy
import os

import pytest
import torch
from gpu_helpers import distance, options
from network_helpers import images, labelled, randomize, tiny
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from training_helpers import QUIET, column, train

from langevin.features.extractor import _without_tf32
from langevin.training.shares import full_tensor, share_out, summon_full_params


@pytest.fixture(autouse=True)
def _alone():
    """Processes and ports are forgotten afterwards."""
    before = dict(os.environ)
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def test_ddp_learns_as_one_process(tmp_path, device, record_property):
    curves = []
    for strategy in ("auto", "ddp"):
        extra = (f"trainer.strategy={strategy}", "trainer.devices=1", *options(device, "32-true", benchmark=False))
        run = train(tmp_path, *QUIET, *extra, name=strategy)
        curves.append(torch.tensor(list(column(run.rows, "train/loss").values())))
        if strategy == "ddp":
            record_property("backend", distributed.get_backend())
    assert len(curves[0]) == 6
    apart = float(((curves[0] - curves[1]) / curves[0]).abs().max())
    record_property("greatest relative difference of the loss", apart)
    assert apart < 1e-5


def outcome(network, x, t, cond):
    """A network's output, and the gradients of the mean of its squares, all of them on each process."""
    network.zero_grad()
    output = network(x, t, cond)
    output.square().mean().backward()
    return [output.detach(), *(full_tensor(weight.grad) for weight in network.parameters())]


def test_shards_compute_as_the_whole(tmp_path, device, record_property):
    backend = "nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    network = tiny(in_channels=3, out_channels=3, condition=labelled(), channel_multipliers=[1, 2])
    randomize(network)
    average, plain = copy.deepcopy(network).requires_grad_(False), copy.deepcopy(network).to(device)
    # In this order, as a run does it: the networks come from the CPU.
    share_out(network, [average], init_device_mesh(device, (1,)))
    network.to(device)
    average.to(device)
    assert all(isinstance(weight, DTensor) for weight in (*network.parameters(), *average.parameters()))

    x, t = images(4, 8).to(device), torch.linspace(1, 900, 4).to(device)
    cond = {"label": torch.tensor([0, 1, 2, -1], device=device)}
    with _without_tf32():
        expected, ours = outcome(plain, x, t, cond), outcome(network, x, t, cond)
        errors = [distance(a, b) for a, b in zip(ours, expected, strict=True) if b.norm() > 1e-6 * expected[0].norm()]
        with summon_full_params(average), torch.no_grad():
            assert not any(isinstance(weight, DTensor) for weight in average.parameters())
            errors.append(distance(average(x, t, cond), expected[0]))
    assert all(isinstance(weight, DTensor) for weight in average.parameters())
    assert len(errors) > 20
    record_property("backend", distributed.get_backend())
    record_property("greatest relative error", max(errors))
    assert max(errors) < 1e-5
