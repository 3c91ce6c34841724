"""Every option that decides what is trained takes a training step."""

import math

import pytest
import torch
from helpers.commands import TINY, composed
from helpers.digits import digits

from contracts.options import OPTIONS
from langevin.build.components import DataFacts, make, make_denoiser, make_objective
from langevin.build.run import make_module
from langevin.images import from_uint8

FACTS = DataFacts(channels=1, image_size=8, num_classes=10)
GROUPS = (
    "schedule",
    "parameterization",
    "variance",
    "objective",
    "weighting",
    "time_sampler",
    "ema",
    "optimizer",
    "lr_schedule",
    "condition",
    "formulation",
)


def batch(size=8):
    images, labels = digits()
    return from_uint8(torch.from_numpy(images[:size]).permute(0, 3, 1, 2)), torch.from_numpy(labels[:size]).long()


def gradient(loss, network):
    """The norm of the gradient; every parameter has one."""
    loss.backward()
    assert all(weight.grad is not None for weight in network.parameters())
    return torch.stack([weight.grad.norm() for weight in network.parameters()]).norm()


@pytest.mark.parametrize(("group", "option"), [(group, option) for group, option in OPTIONS if group in GROUPS])
def test_takes_a_step(group, option):
    cfg, _ = composed("train", f"{group}={option}", *TINY)
    torch.manual_seed(0)
    module = make_module(cfg, FACTS)
    network, averaged = module.denoiser.network, module.ema.network
    x, labels = batch()
    terms = module.objective(module.denoiser, x, module.condition(labels))
    assert all(term.shape == (len(x),) for term in terms.values())
    loss = terms["loss"].mean()
    assert 0 < loss < float("inf")
    assert 0 < gradient(loss, network) < float("inf")

    before = [weight.detach().clone() for weight in network.parameters()]
    optimizer = module.make_optimizer(network.parameters())
    optimizer.step()
    module.ema.update(network, 1, len(x))
    moved = [not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True)]
    assert any(moved)
    for weight in (*network.parameters(), *averaged.parameters()):
        assert weight.isfinite().all()


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "lr_schedule"])
def test_the_rate_is_finite_at_every_step(option):
    factor = make(composed("train", f"lr_schedule={option}")[0], "lr_schedule")
    factors = [factor(step) for step in range(3000)]
    assert all(0 <= value < math.inf for value in factors)
    assert max(factors) > 0


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "model"])
def test_a_model_takes_a_step(option):
    """At its own size, which may be large: so without optimizer and average."""
    cfg, _ = composed("train", f"model={option}", "condition=class_label")
    torch.manual_seed(0)
    denoiser = make_denoiser(cfg, FACTS)
    x, labels = batch(2)
    loss = make_objective(cfg)(denoiser, x, {"label": labels})["loss"].mean()
    assert 0 < loss < float("inf")
    assert 0 < gradient(loss, denoiser.network) < float("inf")
