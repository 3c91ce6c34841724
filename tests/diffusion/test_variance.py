import numpy as np
import pytest
import torch
from conf_parts import SCHEDULES, component, trained
from diffusers import DDPMScheduler
from diffusion_helpers import linear_betas, normal, times

from langevin.config.validate import options
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.cosine_log_snr import CosineLogSNR
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.variance import FixedLarge, FixedSmall, LearnedRange


def cosine_betas(num_steps: int) -> np.ndarray:
    bar = np.cos((np.arange(num_steps + 1) / num_steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - bar[1:] / bar[:-1], 0.999)


def diffusers(betas: np.ndarray, variance_type: str, inference_steps: int | None = None) -> DDPMScheduler:
    """DDPM's scheduler in float64, on all steps or on a coarser grid."""
    scheduler = DDPMScheduler(num_train_timesteps=len(betas), variance_type=variance_type)
    scheduler.alphas_cumprod = torch.from_numpy(np.cumprod(1 - betas))
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    if inference_steps is not None:
        scheduler.set_timesteps(inference_steps)
    return scheduler


@pytest.fixture(params=["linear", "linear-40", "cosine"])
def tables(request):
    """A schedule and its betas."""
    return {
        "linear": (Linear(), linear_betas(1000)),
        "linear-40": (Linear(40), linear_betas(40)),
        "cosine": (Cosine(), cosine_betas(1000)),
    }[request.param]


def test_fixed_small_is_diffusers(tables):
    schedule, betas = tables
    theirs = diffusers(betas, "fixed_small")
    t = torch.arange(2, len(betas) + 1, dtype=torch.float64)
    expected = torch.stack([theirs._get_variance(int(i) - 1) for i in t])
    ours = FixedSmall().log_variance(None, schedule, t - 1, t).exp()
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=0)


def test_fixed_large_is_diffusers(tables):
    schedule, betas = tables
    theirs = diffusers(betas, "fixed_large")
    t = torch.arange(2, len(betas) + 1, dtype=torch.float64)
    expected = torch.stack([theirs._get_variance(int(i) - 1) for i in t])
    ours = FixedLarge().log_variance(None, schedule, t - 1, t).exp()
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=0)


def test_learned_range_is_diffusers(tables):
    schedule, betas = tables
    theirs = diffusers(betas, "learned_range")
    for index in (1, 2, len(betas) // 2, len(betas) - 1):
        output = normal(2, 3, 4, 4, seed=index)
        t = times(index + 1.0, index + 1.0)
        ours = LearnedRange().log_variance(output, schedule, t - 1, t)
        torch.testing.assert_close(ours, theirs._get_variance(index, output), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inference_steps", [4, 10, 20])
def test_respaced_steps_are_diffusers(tables, inference_steps):
    schedule, betas = tables
    stride = len(betas) // inference_steps
    small, large, learned = (
        diffusers(betas, name, inference_steps) for name in ("fixed_small", "fixed_large", "learned_range")
    )
    output = normal(1, 1, 2, 2)
    for index in small.timesteps[:-1].tolist():
        t, s = times(index + 1.0), times(index + 1.0 - stride)
        assert small.previous_timestep(index) == index - stride
        for ours, theirs in (
            (FixedSmall().log_variance(None, schedule, s, t).exp(), small._get_variance(index)),
            (FixedLarge().log_variance(None, schedule, s, t).exp(), large._get_variance(index)),
            (LearnedRange().log_variance(output, schedule, s, t), learned._get_variance(index, output)),
        ):
            torch.testing.assert_close(ours.squeeze(), theirs.squeeze(), rtol=1e-9, atol=0)


def test_the_decoders_variance_is_that_of_the_next_step(tables):
    # DDPM's and Improved DDPM's code: beta-tilde_1 is 0 and is replaced by beta-tilde_2; beta_1 too.
    schedule, betas = tables
    second = diffusers(betas, "fixed_small")._get_variance(1)
    s, t = times(0.0), times(1.0)
    for variance in (FixedSmall(), FixedLarge()):
        torch.testing.assert_close(variance.log_variance(None, schedule, s, t)[0].exp(), second, rtol=1e-9, atol=0)
    learned = LearnedRange().log_variance(times(-1.0, 0.0, 1.0).reshape(1, 1, 1, 3), schedule, s, t).exp().flatten()
    first = float(betas[0])
    expected = [float(second), (float(second) * first) ** 0.5, first]
    assert learned.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("length", [2, 10, 400])
def test_the_decoders_variance_on_a_coarser_grid_is_that_of_the_next_step_of_its_length(length):
    bar = np.cumprod(1 - linear_betas(1000))
    near, far = bar[length - 1], bar[2 * length - 1]
    expected = (1 - far / near) * (1 - near) / (1 - far)
    for variance in (FixedSmall(), FixedLarge()):
        ours = variance.log_variance(None, Linear(), times(0.0), times(length)).exp()
        assert ours.item() == pytest.approx(expected, rel=1e-9)


def test_the_decoders_variance_where_the_next_step_is_cut_short_by_the_end():
    bar = np.cumprod(1 - linear_betas(1000))
    near, far = bar[699], bar[999]
    expected = (1 - far / near) * (1 - near) / (1 - far)
    assert FixedSmall().log_variance(None, Linear(), times(0.0), times(700.0)).exp().item() == pytest.approx(expected)


def test_a_single_step_has_its_own_variance():
    ours = FixedSmall().log_variance(None, Linear(), times(0.0), times(1000.0)).exp()
    assert ours.item() == pytest.approx(1 - np.prod(1 - linear_betas(1000)), rel=1e-12)


@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge()])
def test_the_decoder_is_known_by_its_time_not_by_its_noise(variance):
    # With logSNR schedules a little noise is left at the data, but s = 0 is still the decoder.
    schedule = CosineLogSNR(100)
    second = FixedSmall().log_variance(None, schedule, times(1.0), times(2.0))
    torch.testing.assert_close(
        variance.log_variance(None, schedule, times(0.0), times(1.0)), second, rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge()])
def test_a_fixed_variance_needs_no_channels(variance):
    assert variance.channels(3) == 3
    assert variance.channels(1) == 1
    assert not variance.learned


def test_a_learned_variance_needs_as_many_channels_again():
    assert LearnedRange().channels(3) == 6
    assert LearnedRange().learned


def test_every_image_and_pixel_has_the_variance_of_its_own_time_and_output():
    output, t = normal(2, 3, 4, 4), times(5.0, 600.0)
    together = LearnedRange().log_variance(output, Linear(), t - 1, t)
    assert together.shape == output.shape
    for row in range(2):
        alone = LearnedRange().log_variance(output[row : row + 1], Linear(), t[row] - 1, t[row])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", SCHEDULES, ids=lambda name: name.replace(" ", "+"))
def test_on_every_schedule_the_small_is_below_the_large_and_the_learned_between(name):
    schedule = SCHEDULES[name]
    t = trained(schedule)
    s = torch.cat([t.new_zeros(1), t[:-1]])
    small, large = (variance.log_variance(None, schedule, s, t) for variance in (FixedSmall(), FixedLarge()))
    assert small.isfinite().all()
    assert large.isfinite().all()
    assert (small <= large + 1e-12).all()
    middle = LearnedRange().log_variance(torch.zeros(len(t), 1, 1, 1, dtype=torch.float64), schedule, s, t).flatten()
    torch.testing.assert_close(middle[1:], (small + large)[1:] / 2, rtol=1e-12, atol=1e-12)


def test_all_of_conf_is_here():
    assert {type(component("variance", option)) for option in options("variance")} == {
        FixedSmall,
        FixedLarge,
        LearnedRange,
    }
