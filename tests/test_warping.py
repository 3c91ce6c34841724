"""Images under affine maps: against what is exact, and the wavelet against what defines it."""

import math

import numpy as np
import pytest
import torch

from langevin.warping import SYM6, warp

B, C, H, W = 3, 2, 12, 16


def noise(height=H, width=W):
    return torch.randn(B, C, height, width, generator=torch.Generator().manual_seed(0))


def maps(linear, offset=(0.0, 0.0)):
    return torch.cat([torch.tensor(linear), torch.tensor(offset)[:, None]], 1).expand(B, -1, -1)


EYE = ((1.0, 0.0), (0.0, 1.0))


def test_the_filter_is_orthonormal_with_six_vanishing_moments():
    taps = np.array(SYM6)
    for shift in range(6):
        assert taps[2 * shift :] @ taps[: 12 - 2 * shift] == pytest.approx(float(shift == 0), abs=1e-10)
    for moment in range(6):
        assert ((-1.0) ** np.arange(12) * taps) @ np.arange(-5, 7) ** moment == pytest.approx(0, abs=1e-7)


def test_the_identity_leaves_an_image_as_it_is():
    torch.testing.assert_close(warp(noise(), maps(EYE)), noise(), rtol=0, atol=1e-4)
    half = warp(noise().bfloat16(), maps(EYE))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, noise().bfloat16(), rtol=0, atol=2e-2)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, 4), (-5, 2)])
def test_whole_shifts_move_the_reflected_image(right, down):
    moved = warp(noise(), maps(EYE, (-float(right), -float(down))))
    padded = np.pad(noise().numpy(), ((0, 0), (0, 0), (5, 5), (5, 5)), mode="reflect")
    expected = torch.from_numpy(padded[:, :, 5 - down : 5 - down + H, 5 - right : 5 - right + W])
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-3)


def test_a_wave_is_transformed_as_its_formula_is():
    """By any map, away from the borders; bilinear sampling at half pixels loses 1 % of this wave at most."""
    linear, offset = torch.tensor([[0.8, -0.3], [0.2, 1.1]]), torch.tensor([0.7, -0.4])
    y, x = torch.meshgrid(torch.arange(32.0) - 15.5, torch.arange(32.0) - 15.5, indexing="ij")
    places = torch.stack([x, y])

    def wave(places):
        return torch.cos(0.4 * places[0] + 0.3 * places[1] + 0.5)[None, None]

    moved = warp(wave(places), torch.cat([linear, offset[:, None]], 1)[None])
    expected = wave(torch.einsum("ij,jyx->iyx", linear, places) + offset[:, None, None])
    torch.testing.assert_close(moved[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8], rtol=0, atol=0.02)


def test_finer_detail_than_pixels_becomes_grey():
    """An image of stripes a pixel wide, made half as large: without a filter it would be black or white."""
    stripes = torch.ones(1, 1, 32, 32)
    stripes[..., 1::2] = -1
    small = warp(stripes, 2 * maps(EYE)[:1])
    assert small[..., 10:-10, 10:-10].abs().max() < 0.1


def test_all_of_an_image_beyond_its_reflections_is_zero():
    far = warp(noise(), maps(EYE, (10.0 * math.hypot(H, W), 0.0)))
    assert not far.any()
