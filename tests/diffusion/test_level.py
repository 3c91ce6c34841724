import math

import pytest
import torch
from diffusion_helpers import times

from langevin.diffusion.level import Level, broadcast_to, combine


def test_ratios():
    level = Level(times(0.8, 1.0, 0.0), times(0.6, 0.0, 1.0))
    assert level.ratio.tolist() == [pytest.approx(0.75), 0.0, math.inf]
    assert level.snr.tolist() == [pytest.approx(16 / 9), math.inf, 0.0]
    assert level.log_snr.tolist() == [pytest.approx(math.log(16 / 9)), math.inf, -math.inf]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_coefficient_a_image_multiplies_that_image(dtype):
    images = torch.arange(2 * 3 * 4 * 5, dtype=dtype).reshape(2, 3, 4, 5)
    product = broadcast_to(times(2.0, -3.0), images) * images
    assert product.dtype == dtype
    assert torch.equal(product[0], 2 * images[0])
    assert torch.equal(product[1], -3 * images[1])


def test_one_coefficient_multiplies_all():
    images = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert torch.equal(broadcast_to(torch.tensor(0.5, dtype=torch.float64), images) * images, 0.5 * images)


def test_a_coefficient_a_pixel_multiplies_that_pixel():
    images = torch.arange(24.0).reshape(2, 3, 2, 2)
    coefficient = torch.linspace(0, 1, 24, dtype=torch.float64).reshape(2, 3, 2, 2)
    product = broadcast_to(coefficient, images) * images
    assert product.shape == images.shape
    assert product[1, 2, 0, 1].item() == pytest.approx(21 * 21 / 23)


def test_coefficients_fit_a_row_of_losses():
    losses = torch.tensor([1.0, 2.0])
    assert (broadcast_to(times(3.0, 5.0), losses) * losses).tolist() == [3.0, 10.0]


def test_combine():
    x, y = torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 10.0)
    mixed = combine(times(1.0, 2.0), x, times(3.0, 4.0), y)
    assert mixed.dtype == torch.float32
    assert mixed[:, 0, 0, 0].tolist() == [31.0, 42.0]
