"""Every sampler, timestep_spacing, thresholding and guidance makes images."""

import functools

import pytest
import torch
from helpers.commands import TINY, composed
from omegaconf import OmegaConf
from torch import nn

from contracts.options import NEEDS, SPEC, in_turn, swapped, with_files
from langevin.assembly.check import mistakes_in
from langevin.assembly.components import loaders, make_generator, make_model, make_sampler
from langevin.assembly.make import make
from langevin.codecs.identity import Identity
from langevin.config.validate import options
from langevin.diffusion.draws import SampleDraws
from langevin.guidance.guidance import Guided

STEPS = 4


@functools.cache
def base(beta_end=0.02):
    # With a channel a group, GroupNorm would make the network blind to time and label.
    telling = ("model.norm_groups=8", "conditions=[class_label]")
    return composed("train", *TINY, *telling, *process(beta_end))[0]


def process(beta_end):
    return "schedule.num_steps=100", f"schedule.beta_end={beta_end}"


@functools.cache
def denoiser(beta_end=0.02):
    """An untrained network that tells times and labels apart."""
    torch.manual_seed(0)
    model = make_model(base(beta_end), SPEC).eval()
    for weight in model.network.parameters():
        if weight.ndim > 1 and not weight.any():  # layers that start from zero hide what comes before them
            nn.init.normal_(weight, std=0.1)
    return model


def chosen(beta_end=0.02, **choices):
    cfg = swapped(base(beta_end), **choices)
    cfg.sampler.steps = STEPS
    if OmegaConf.is_missing(cfg.timestep_spacing, "times"):
        cfg.timestep_spacing.times = [100, 60, 20, 5]
    for need in NEEDS.get(("guidance", choices.get("guidance")), ()):
        path, _, value = with_files(need, *process(beta_end)).partition("=")
        if path.startswith("guidance."):
            OmegaConf.update(cfg, path, value)
    return cfg


def sampled(cfg, model):
    """Images (6, 1, 8, 8), before rounding."""
    guided = model if cfg.guidance is None else Guided(model, make(cfg, "guidance", **loaders(cfg)))
    noise = SampleDraws(0, range(6), SPEC.shape)
    return make_sampler(cfg, SPEC)(guided, noise, {"label": torch.arange(6)})


@pytest.mark.parametrize(
    ("sampler", "timestep_spacing", "guidance"), in_turn("sampler", "timestep_spacing", "guidance")
)
def test_makes_finite_images(sampler, timestep_spacing, guidance):
    cfg = chosen(sampler=sampler, timestep_spacing=timestep_spacing, guidance=guidance, thresholding="static")
    assert mistakes_in(cfg) == []
    images = sampled(cfg, denoiser())
    assert images.shape == (6, 1, 8, 8)
    assert images.isfinite().all()
    assert images.abs().max() < 2, "in range, but for what a multistep method extrapolates"
    assert images.std() > 0.01
    assert not torch.equal(images[0], images[1])

    (batch,) = make_generator(cfg, SPEC, Identity())(denoiser(), range(6), 0, 6, "cpu")
    torch.testing.assert_close(batch.samples.float(), (images.clamp(-1, 1) + 1) * 127.5, rtol=0, atol=0.51)
    assert batch.cond["label"].tolist() == list(range(6))


@pytest.mark.parametrize("thresholding", options("thresholding"))
def test_thresholding_keeps_images_in_range(thresholding):
    images = sampled(chosen(sampler="ddim", thresholding=thresholding), denoiser())
    assert images.isfinite().all()
    assert (images.abs().max() <= 1) == (thresholding != "none")


@pytest.mark.parametrize("option", options("guidance"))
def test_guidance_steers(option):
    # Little noise, so that the images are not all clamped.
    guided, plain = (sampled(chosen(2e-3, guidance=name), denoiser(2e-3)) for name in (option, "none"))
    difference = (guided - plain).abs().max()
    assert difference == 0 if option == "none" else difference > 1e-3


@pytest.mark.parametrize("option", options("sampler"))
def test_its_own_number_of_steps_suits_the_schedule(option):
    cfg = swapped(base(), sampler=option)
    cfg.schedule.num_steps = 250
    sampler = make_sampler(cfg, SPEC)
    times = sampler.timestep_spacing(make(cfg, "schedule"), sampler.steps)
    assert times[0] > times[-1] == 0
