"""Operators beside what others make: torch, Pillow, SciPy."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from langevin.errors import OptionError, UserError
from langevin.restoration.operators.average import Average
from langevin.restoration.operators.bicubic import Bicubic
from langevin.restoration.operators.blur import SMALLEST, Blur
from langevin.restoration.operators.composition import Composition
from langevin.restoration.operators.grey import Grey
from langevin.restoration.operators.random_mask import RandomMask


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_an_average_is_of_the_squares(factor):
    x = draw(2, 3, 12, 24)
    squares = x.reshape(2, 3, 12 // factor, factor, 24 // factor, factor)
    torch.testing.assert_close(Average(factor)(x), squares.mean((3, 5)), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("factor", [2, 3, 4, 12])
def test_bicubic_equals_torchs_and_pillows(factor):
    x = draw(2, 3, 12, 24)
    size = (12 // factor, 24 // factor)
    torchs = functional.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(Bicubic(factor)(x), torchs, rtol=1e-13, atol=1e-13)
    image = Image.fromarray(x[0, 0].float().numpy()).resize(size[::-1], Image.Resampling.BICUBIC)
    torch.testing.assert_close(Bicubic(factor)(x)[0, 0].float(), torch.from_numpy(np.array(image)), rtol=0, atol=2e-6)


@pytest.mark.parametrize("sigma", [0.3, 0.8, 3.0, 50.0])
@pytest.mark.parametrize("size", [(16, 24), (9, 15)])
def test_a_blur_is_scipys_but_for_what_it_almost_removes(sigma, size):
    x = draw(1, 2, *size)
    smooth = torch.fft.ifft2(torch.where(torch.fft.fft2(impulse(size, sigma)).real < SMALLEST, 0, torch.fft.fft2(x)))
    for image, kept, found in zip(x[0], smooth.real[0], Blur(sigma)(x)[0], strict=True):
        # of what it leaves, the same; of all, the same up to the smallest
        exact = torch.from_numpy(gaussian_filter(kept.numpy(), sigma, mode="wrap", truncate=8))
        assert float((found - exact).abs().max()) < 1e-12
        all_of_it = torch.from_numpy(gaussian_filter(image.numpy(), sigma, mode="wrap", truncate=8))
        assert float((found - all_of_it).norm()) <= SMALLEST * float(image.norm())


def impulse(size, sigma):
    """What scipy makes of a single 1, whose transform is real."""
    one = np.zeros(size)
    one[0, 0] = 1
    return torch.from_numpy(gaussian_filter(one, sigma, mode="wrap", truncate=8))


def test_the_pseudo_inverse_of_a_blur_enlarges_no_error_beyond_its_bound():
    error = draw(1, 1, 32, 32)
    restored = Blur(1.5).pseudo_inverse(error, (1, 32, 32))
    assert float(restored.norm()) <= float(error.norm()) / SMALLEST


def test_grey_is_pillows():
    levels = torch.randint(0, 256, (1, 3, 20, 30), generator=torch.Generator().manual_seed(0))
    pillows = Image.fromarray(levels[0].permute(1, 2, 0).numpy().astype(np.uint8)).convert("L")
    assert float((Grey()(levels.double())[0, 0] - torch.from_numpy(np.array(pillows))).abs().max()) < 0.51


def test_what_does_not_fit_is_refused_by_the_option_that_is_at_fault():
    for operator in (Average(4), Bicubic(4)):
        with pytest.raises(OptionError, match=r"^factor is 4; allowed for images of 6 x 12 pixels: 2, 3, 6$"):
            operator.measured((3, 6, 12))
    with pytest.raises(OptionError, match=r"factor is 2; .* none, their sides share no divisor$"):
        Average(2).measured((3, 7, 12))
    for channels in (1, 4):
        with pytest.raises(
            UserError, match=rf"^measures RGB images \(3, H, W\), and these are of shape \({channels}, "
        ):
            Grey().measured((channels, 8, 8))
    chain = Composition({"grey": Grey(), "average": Average(2), "bicubic": Bicubic(4)})
    assert chain.measured((3, 16, 24)) == (1, 2, 3)
    with pytest.raises(OptionError, match=r"^operators\.bicubic\.factor is 4; allowed for images of 6 x 12 pixels: "):
        chain.measured((3, 12, 24))
    with pytest.raises(OptionError, match=r"^operators\.grey measures RGB images"):
        chain.measured((1, 16, 24))


def test_a_composition_is_in_the_order_given_and_so_is_its_record():
    one = Composition({"average": Average(2), "blur": Blur(1.0)})
    other = Composition({"blur": Blur(1.0), "average": Average(2)})
    x = draw(1, 1, 8, 8)
    torch.testing.assert_close(one(x), Blur(1.0)(Average(2)(x)), rtol=0, atol=0)
    assert not torch.allclose(one(x), other(x), rtol=0, atol=0.01)
    assert one.record() == {"operators": [Average(2).record(), Blur(1.0).record()]} != other.record()


def test_systems_after_averages_are_solved_in_closed_form(monkeypatch):
    def never(*args):
        raise AssertionError("conjugate gradients")

    monkeypatch.setattr("langevin.restoration.operators.operator.least_squares", never)
    chain = Composition({"grey": Grey(), "average": Average(2), "bicubic": Bicubic(2)})
    chain.pseudo_inverse(draw(1, 1, 2, 2), (3, 8, 8))
    with pytest.raises(AssertionError, match="conjugate"):
        Composition({"bicubic": Bicubic(2), "average": Average(2)}).pseudo_inverse(draw(1, 3, 2, 2), (3, 8, 8))


def test_an_ill_conditioned_chain_is_restored_in_float32():
    """A x = y to rounding, by an x no longer than the one that was measured."""
    chain = Composition({"blur": Blur(2.0), "random_mask": RandomMask(0.5)})
    x = draw(2, 1, 64, 64).float()
    y = chain(x)
    restored = chain.pseudo_inverse(y, (1, 64, 64))
    assert float((chain(restored) - y).norm()) < 1e-4 * float(y.norm())
    assert float(restored.norm()) < float(x.norm())
