import numpy as np
import pytest
import torch
from helpers.extractors import TinyExtractor
from helpers.images import example_images
from helpers.measured import measured, reference_of
from scipy.ndimage import correlate
from torchmetrics.functional.image import structural_similarity_index_measure

from langevin.errors import UserError
from langevin.metrics.base import Plan
from langevin.metrics.reference import Reference
from langevin.metrics.ssim import SSIM


def ssim(samples, targets, order=None):
    values = measured(SSIM(), {"stored": samples}, reference_of(1), order=order, targets=targets)
    assert list(values) == ["ssim"]
    return float(values["ssim"])


def by_definition(x, y):
    """Equation 13 of Wang et al. 2004 at each pixel of two grey images (H, W), mirrored at their borders; the mean."""
    offset = np.arange(-5, 6)
    window = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(image):
        return correlate(image, window, mode="mirror")

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2, mean(x * y) - mu_x * mu_y
    return ((2 * mu_x * mu_y + c1) * (2 * cov + c2) / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))).mean()


def pairs(channels, height=32, width=32):
    targets = example_images(16, 32, channels)[..., :height, :width]
    noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(1)) * 20
    return (targets + noise).clamp(0, 255).to(torch.uint8), targets


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 32, 20), (1, 11, 11)])
def test_equals_the_definition_and_torchmetrics(shape):
    samples, targets = pairs(*shape)
    every = [
        (x.astype(float), y.astype(float))
        for x, y in zip(samples.flatten(0, 1).numpy(), targets.flatten(0, 1).numpy(), strict=True)
    ]
    expected = np.mean([by_definition(x, y) for x, y in every])
    assert 0.2 < expected < 0.9
    assert ssim(samples, targets) == pytest.approx(expected, abs=1e-10)
    peer = structural_similarity_index_measure(samples.double(), targets.double(), data_range=255.0)
    assert ssim(samples, targets) == pytest.approx(float(peer), abs=1e-6)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    assert ssim(samples, targets, order) == pytest.approx(expected, abs=1e-10)


def test_of_copies_is_one_and_of_negatives_is_below_zero():
    targets = example_images(5, 16)
    assert ssim(targets, targets) == pytest.approx(1, abs=1e-12)
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(8).expand(1, 1, 16, 16)
    assert ssim(stripes, 255 - stripes) < -0.9


def test_images_smaller_than_the_window_are_refused():
    plan = Plan(4, reference_of(4), TinyExtractor(), target=reference_of(4))
    with pytest.raises(UserError, match=r"metrics\.ssim compares windows of 11 x 11 pixels, .* of 8 x 8: drop it"):
        SSIM().check(plan)
    SSIM().check(plan._replace(target=Reference(np.zeros((4, 11, 12, 3), np.uint8))))
