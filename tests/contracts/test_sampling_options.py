"""Every sampler, grid and guidance makes pictures."""

import pytest
import torch
from helpers.commands import TINY, composed
from torch import nn

from langevin.build.components import DataFacts, make, make_denoiser, make_generator, make_sampler
from langevin.config.validate import options
from langevin.samplers.noise import ImageNoise

FACTS = DataFacts(channels=1, image_size=8, num_classes=10)


def pictures(*overrides):
    """Pictures (6, 1, 8, 8) of an untrained network, before rounding; and the config they were made with."""
    # Wider than TINY: with a channel a group, GroupNorm would make the network blind to time and label.
    cfg, _ = composed("train", *TINY, "model.channel_multipliers=[2]", "condition=class_label", *overrides)
    torch.manual_seed(0)
    denoiser = make_denoiser(cfg, FACTS).eval()
    for weight in denoiser.network.parameters():
        if weight.ndim > 1 and not weight.any():  # layers that start from zero hide what comes before them
            nn.init.normal_(weight, std=0.1)
    guided = denoiser if cfg.guidance is None else make(cfg, "guidance", denoiser=denoiser)
    noise = ImageNoise(0, range(6), FACTS.shape)
    return make_sampler(cfg)(guided, noise, {"label": torch.arange(6)}), cfg, denoiser


@pytest.mark.parametrize("guidance", options("guidance"))
@pytest.mark.parametrize("grid", options("grid"))
@pytest.mark.parametrize("sampler", options("sampler"))
def test_makes_finite_pictures(sampler, grid, guidance):
    images, cfg, denoiser = pictures(
        f"sampler={sampler}", f"grid={grid}", f"guidance={guidance}", "schedule.num_steps=100", "sampler.steps=4"
    )
    assert images.shape == (6, 1, 8, 8)
    assert images.isfinite().all()
    assert images.abs().max() <= 1, "clip is on by default, and the last step is the predicted picture"
    assert images.std() > 0.01
    assert not torch.equal(images[0], images[1])

    (batch,) = make_generator(cfg, FACTS)(denoiser, range(6), 0, 6, "cpu")
    torch.testing.assert_close(batch.images.float(), (images + 1) * 127.5, rtol=0, atol=0.51)
    assert batch.labels.tolist() == list(range(6))


@pytest.mark.parametrize("option", options("guidance"))
def test_guidance_steers(option):
    guided, plain = (pictures(f"guidance={name}", "schedule.beta_end=2e-3")[0] for name in (option, "none"))
    difference = (guided - plain).abs().max()
    assert difference == 0 if option == "none" else difference > 0.05


@pytest.mark.parametrize("option", options("sampler"))
def test_its_own_number_of_steps_suits_the_schedule(option):
    overrides = [override for override in TINY if not override.startswith("sampler.")]
    cfg, _ = composed("train", *overrides, f"sampler={option}", "schedule.num_steps=60")
    sampler = make_sampler(cfg)
    times = sampler.grid(make(cfg, "schedule"), sampler.steps)
    assert times[0] > times[-1] == 0
