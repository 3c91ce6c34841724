import math

import numpy as np
import pytest
import torch
from helpers.extractors import TinyExtractor
from helpers.images import example_images
from helpers.measured import measured, reference_of
from torchmetrics.functional.image import peak_signal_noise_ratio

from langevin.errors import UserError
from langevin.metrics.base import Plan
from langevin.metrics.psnr import PSNR
from langevin.metrics.reference import Reference


def psnr(samples, targets, order=None):
    values = measured(PSNR(), {"stored": samples}, reference_of(1), order=order, targets=targets)
    assert list(values) == ["psnr"]
    return float(values["psnr"])


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 8)])
def test_equals_the_mean_of_each_images_ratio(channels, size):
    """As torchmetrics and numpy compute it; some images are much worse than others."""
    targets = example_images(23, size, channels)
    noise = (
        torch.randn(targets.shape, generator=torch.Generator().manual_seed(1))
        * torch.arange(1, 24)[:, None, None, None]
    )
    samples = (targets + noise).clamp(0, 255).to(torch.uint8)
    error = ((samples.numpy().astype(float) - targets.numpy()) ** 2).mean((1, 2, 3))
    expected = (10 * np.log10(255**2 / error)).mean()
    assert psnr(samples, targets) == pytest.approx(expected, rel=1e-13)
    peer = peak_signal_noise_ratio(samples.double(), targets.double(), data_range=255.0, dim=(1, 2, 3))
    assert psnr(samples, targets) == pytest.approx(float(peer), rel=1e-6)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(2))
    assert psnr(samples, targets, order) == pytest.approx(expected, rel=1e-13)
    assert 10 * math.log10(255**2 / error.mean()) < expected - 1, "the ratio of the mean error is another number"


def test_of_the_farthest_images_is_zero():
    black = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    assert psnr(black, 255 - black) == 0


def test_a_copy_counts_as_off_by_a_level_in_one_number():
    targets = example_images(2, 16)
    near = targets.clone()
    near[1, 0, 0, 0] ^= 1
    highest = 10 * math.log10(255**2 * 3 * 16 * 16)
    assert psnr(targets, targets) == psnr(near, targets) == pytest.approx(highest, rel=1e-14)


def test_vectors_are_refused():
    vectors = Reference(np.zeros((4, 2), np.float32))
    with pytest.raises(UserError, match=r"metrics\.psnr is of images, but these samples are of shape \(2,\)"):
        PSNR().check(Plan(4, reference_of(4), TinyExtractor(), target=vectors))
