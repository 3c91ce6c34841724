import math

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding

from langevin.networks.embeddings import TimeEmbedding, sinusoidal_embedding

TIMES = torch.tensor([0.0, 1.0, 0.37, 17.5, 999.0])


def test_closed_form():
    embedding = sinusoidal_embedding(TIMES, 8)
    for row, time in zip(embedding.tolist(), TIMES.tolist(), strict=True):
        angles = [time * 10000 ** (-i / 3) for i in range(4)]
        expected = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        assert row == pytest.approx(expected, abs=2e-4 if time > 100 else 1e-5)


@pytest.mark.parametrize("dim", [4, 64, 128])
def test_equals_diffusers(dim):
    expected = get_timestep_embedding(TIMES, dim, flip_sin_to_cos=False, downscale_freq_shift=1)
    torch.testing.assert_close(sinusoidal_embedding(TIMES, dim), expected, rtol=0, atol=1e-6)


def test_is_float32_whatever_comes_in():
    expected = sinusoidal_embedding(torch.tensor([999.0]), 64)
    assert torch.equal(sinusoidal_embedding(torch.tensor([999]), 64), expected)
    assert torch.equal(sinusoidal_embedding(torch.tensor([999.0], dtype=torch.float64), 64), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sinusoidal_embedding(torch.tensor([999.0]), 64), expected)


def test_neighbouring_times_differ_in_bfloat16():
    embed = TimeEmbedding(64, 256).to(torch.bfloat16)
    near, next_to_it = embed(torch.tensor([999.0, 1000.0]))
    assert near.dtype == torch.bfloat16
    assert (near - next_to_it).abs().max() > 0.01
