import math

import pytest
import torch
from diffusers.models.embeddings import GaussianFourierProjection, get_timestep_embedding

from langevin.networks.embeddings import FEATURES, Fourier, TimeEmbedding, sinusoidal_embedding

TIMES = torch.tensor([0.0, 1.0, 0.37, 17.5, 999.0])


def test_closed_form():
    embedding = sinusoidal_embedding(TIMES, 8)
    for row, time in zip(embedding.tolist(), TIMES.tolist(), strict=True):
        angles = [time * 10000 ** (-i / 3) for i in range(4)]
        expected = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        assert row == pytest.approx(expected, abs=2e-4 if time > 100 else 1e-5)


@pytest.mark.parametrize("dim", [4, 64, 128])
@pytest.mark.parametrize("endpoint", [False, True])
@pytest.mark.parametrize("cosine_first", [False, True])
def test_conventions_equal_diffusers(dim, endpoint, cosine_first):
    expected = get_timestep_embedding(TIMES, dim, flip_sin_to_cos=cosine_first, downscale_freq_shift=int(endpoint))
    torch.testing.assert_close(sinusoidal_embedding(TIMES, dim, endpoint, cosine_first), expected, rtol=0, atol=1e-6)


def test_features_of_a_network():
    assert torch.equal(FEATURES["sinusoidal"](32)(TIMES), sinusoidal_embedding(TIMES, 32))
    expected = sinusoidal_embedding(TIMES, 32, endpoint=False, cosine_first=True)
    assert torch.equal(FEATURES["cosine_first"](32)(TIMES), expected)
    assert {name: make(32)(TIMES).shape[1] for name, make in FEATURES.items()} == {
        "sinusoidal": 32,
        "cosine_first": 32,
        "fourier": 64,
    }


def test_fourier_equals_diffusers():
    fourier = Fourier(32)
    theirs = GaussianFourierProjection(32, scale=16, log=False, flip_sin_to_cos=False)
    theirs.weight.data = fourier.frequencies
    log_sigmas = torch.tensor([-1.5, -0.2, 0.0, 1.1])
    torch.testing.assert_close(fourier(log_sigmas), theirs(log_sigmas), rtol=0, atol=1e-4)


def test_fourier_frequencies_are_drawn_once_and_stored():
    torch.manual_seed(0)
    fourier = Fourier(4096)
    assert abs(fourier.frequencies.std().item() - 16) < 0.6  # more than three standard deviations
    assert abs(fourier.frequencies.mean().item()) < 0.9
    assert not list(fourier.parameters())
    other = Fourier(4096)
    assert not torch.equal(other.frequencies, fourier.frequencies)
    other.load_state_dict(fourier.state_dict())
    assert torch.equal(other(TIMES), fourier(TIMES))


def test_a_condition_is_added_to_the_features():
    embed = TimeEmbedding(32, 64)
    condition = torch.randn(len(TIMES), 32)
    features = sinusoidal_embedding(TIMES, 32) + condition
    expected = embed.linear2(torch.nn.functional.silu(embed.linear1(features)))
    assert torch.equal(embed(TIMES, condition), expected)
    assert not torch.equal(embed(TIMES), expected)


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
