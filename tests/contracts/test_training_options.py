"""Every option that decides what is trained takes a training step."""

import functools
import math
from dataclasses import replace

import pytest
import torch
from helpers.commands import TINY, composed
from helpers.digits import digits
from torch.nn.functional import interpolate

from contracts.options import OPTIONS, OTHER_TASKS, REFUSED, SLOW, STEPPING, choice, chosen_in
from langevin.assembly.check import mistakes_in
from langevin.assembly.components import make_model, make_objective
from langevin.assembly.make import make
from langevin.assembly.run import make_module
from langevin.conditions.text import Text
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import BatchDraws
from langevin.images import from_uint8
from langevin.spec import DataSpec

SPEC = DataSpec.of_images(channels=1, image_size=8, num_classes=10)
# At their own size they take seconds a step; narrow ones learn in networks/test_model_presets.py.
LARGE = ("adm_64", "unet_large", "dit_b", "edm2_xs", "edm2_s")


@functools.cache
def base():
    return composed("train", *TINY)[0]


def batch(count=8, image_size=8):
    images, labels = digits()
    x = from_uint8(torch.from_numpy(images[:count]).permute(0, 3, 1, 2))
    return interpolate(x, size=(image_size, image_size)), torch.from_numpy(labels[:count]).long()


def gradient(loss, network):
    """The norm of the gradient; every parameter has one."""
    loss.backward()
    assert all(weight.grad is not None for weight in network.parameters())
    return torch.stack([weight.grad.norm() for weight in network.parameters()]).norm()


@pytest.mark.parametrize(
    ("group", "option"),
    [
        pytest.param(*place, marks=pytest.mark.slow if place in SLOW else ())
        for place in OPTIONS
        if place[0] in STEPPING and place not in REFUSED
    ],
)
def test_takes_a_step(group, option):
    cfg = chosen_in(base(), TINY, group, option)
    assert (group, option) in OTHER_TASKS or mistakes_in(cfg) == []
    torch.manual_seed(0)
    module = make_module(cfg, replace(SPEC, vocabulary=("a", "seven")))
    network, ema_model = module.model.network, module.ema.network
    x, labels = batch()
    columns = [part.encoder.prepare(["a seven"] * len(x)) for part in network.modules() if isinstance(part, Text)]
    captions = columns[0] if columns else {}
    derived = module.model.derive(x, BatchDraws(0, x, len(x))) if isinstance(module.model, Denoiser) else {}
    terms = module.objective(module.model, {"x": x, "label": labels, **captions, **derived}, BatchDraws(0, x, len(x)))
    assert all(term.shape == (len(x),) for term in terms.values())
    assert tuple(name for name in module.objective.logs if name in terms or option != "reconstruction") == tuple(terms)
    loss = terms["loss"].mean()
    assert 0 < loss < float("inf")
    assert 0 < gradient(loss, network) < float("inf")

    before = [weight.detach().clone() for weight in network.parameters()]
    optimizer = module.make_optimizer(network.parameters())
    optimizer.step()
    module.ema.update(network, 1, len(x))
    moved = [not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True)]
    assert any(moved)
    for weight in (*network.parameters(), *ema_model.parameters()):
        assert weight.isfinite().all()


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "lr_schedule"])
def test_the_rate_is_finite_at_every_step(option):
    factor = make(composed("train", f"lr_schedule={option}")[0], "lr_schedule")
    factors = [factor(step) for step in range(3000)]
    assert all(0 <= value < math.inf for value in factors)
    assert max(factors) > 0


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(option, marks=[pytest.mark.slow] if option in LARGE else [])
        for group, option in OPTIONS
        if group == "classifier"
    ],
)
def test_a_classifier_takes_a_step(option):
    cfg, _ = composed("train", *choice("classifier", option))
    torch.manual_seed(0)
    size = cfg.data.get("image_size") or SPEC.image_size
    module = make_module(cfg, DataSpec.of_images(1, size, 10))
    x, labels = batch(2, size)
    terms = module.objective(module.model, {"x": x, "label": labels}, BatchDraws(0, x, len(x)))
    torch.testing.assert_close(terms["loss"], torch.full((2,), math.log(10)), rtol=1e-4, atol=0)  # of ten classes
    assert 0 < gradient(terms["loss"].mean(), module.model.network) < float("inf")


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(option, marks=[pytest.mark.slow] if option in LARGE else [])
        for group, option in OPTIONS
        if group == "model"
    ],
)
def test_a_model_takes_a_step(option):
    """At its own size, which may be large: so without optimizer and average."""
    cfg, _ = composed("train", *choice("model", option), "conditions=[class_label]")
    torch.manual_seed(0)
    spec = make(cfg, "data").spec(10)
    denoiser = make_model(cfg, spec)
    x, labels = torch.rand(2, *spec.shape) * 2 - 1, torch.tensor([3, 4])
    draws = BatchDraws(0, x, len(x))
    loss = make_objective(cfg, spec)(denoiser, {"x": x, "label": labels}, draws)["loss"].mean()
    assert 0 < loss < float("inf")
    assert 0 < gradient(loss, denoiser.network) < float("inf")
