import pytest
import torch
from diffusers import DDPMScheduler
from diffusion_helpers import times

from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.variance import FixedLarge, FixedSmall


@pytest.mark.parametrize(("variance", "name"), [(FixedSmall(), "fixed_small"), (FixedLarge(), "fixed_large")])
def test_equals_diffusers(variance, name):
    theirs = DDPMScheduler(beta_schedule="linear", variance_type=name)
    t = torch.arange(2, 1001, dtype=torch.float64)
    ours = variance.log_variance(None, Linear(), t - 1, t).exp().float()
    expected = torch.stack([theirs._get_variance(int(i) - 1) for i in t])
    torch.testing.assert_close(ours, expected, rtol=2e-3, atol=0)  # 1 - alpha_bar in float32


def test_adjacent_steps_are_beta_and_beta_tilde():
    betas = [0.0001 + (0.02 - 0.0001) * i / 999 for i in range(1000)]
    bar = 1.0
    for beta in betas[:499]:
        bar *= 1 - beta
    tilde = (1 - bar) / (1 - bar * (1 - betas[499])) * betas[499]
    s, t = times(499.0), times(500.0)
    assert FixedLarge().log_variance(None, Linear(), s, t).exp().item() == pytest.approx(betas[499], rel=1e-12)
    assert FixedSmall().log_variance(None, Linear(), s, t).exp().item() == pytest.approx(tilde, rel=1e-12)


@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge()])
def test_a_fixed_variance_needs_no_channels(variance):
    assert variance.channels(3) == 3
    assert variance.channels(1) == 1
