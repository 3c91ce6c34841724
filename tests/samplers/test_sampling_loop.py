"""The loop that all samplers share."""

import pytest
import torch
from sampler_helpers import Exploding, Gaussian, Written, denoiser

from langevin.diffusion.schedules.linear import Linear
from langevin.errors import UserError
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.ddim import DDIM
from langevin.samplers.grid import Leading, Uniform
from langevin.samplers.sampler import Predictor, Sampler


class Counting(Sampler[int]):
    """Does nothing but keep a record."""

    def __init__(self, grid, steps=None, clip=False) -> None:
        super().__init__(grid, steps, clip)
        self.record = []

    def step(self, denoise, x_t, t, s, state, noise):
        self.record.append((float(t), float(s), state, t.shape, t.dtype))
        return x_t + 1, (state or 0) + 10


def test_walks_the_grid_and_hands_the_state_on():
    sampler = Counting(Uniform(), 4)
    x = sampler(Gaussian(Linear(), 0, 1), lambda: torch.zeros(1, 1, 2, 2))
    assert [(t, s, state) for t, s, state, *_ in sampler.record] == [
        (1000.0, 750.0, None),
        (750.0, 500.0, 10),
        (500.0, 250.0, 20),
        (250.0, 0.0, 30),
    ]
    assert all(shape == () and dtype == torch.float64 for *_, shape, dtype in sampler.record)
    assert (x == 4).all()


def test_all_steps_by_default():
    sampler = Counting(Uniform())
    sampler(Gaussian(Linear(300), 0, 1), lambda: torch.zeros(1, 1, 2, 2))
    assert len(sampler.record) == 300


def test_starts_from_the_schedules_prior():
    seen = []
    noise = torch.tensor([[[[0.5, -1.0]]]], dtype=torch.float64)
    DDIM(Uniform(), 2, clip=False)(
        Gaussian(Exploding(), 0, 1), lambda: noise, on_prediction=lambda x_t, t, prediction: seen.append((x_t, t))
    )
    assert torch.equal(seen[0][0], 80 * noise)
    assert [float(t) for _, t in seen] == [80.0, 40.0]


def test_condition_reaches_the_model():
    asked = []

    class Listening(Gaussian):
        def __call__(self, x_t, t, cond=None):
            asked.append(cond)
            return super().__call__(x_t, t, cond)

    cond = {"label": torch.tensor([1, 2])}
    Ancestral(Leading(), 3)(Listening(Linear(), 0, 1), Written(), cond)
    assert len(asked) == 3
    assert all(given is cond for given in asked)


def test_clipped_prediction_still_explains_the_noisy_picture():
    schedule, t = Linear(), torch.tensor(600.0, dtype=torch.float64)
    model = denoiser(schedule)
    x_t = 3 * Written()()
    free, clipped = (Predictor(model, None, clip, None)(x_t, t) for clip in (False, True))
    assert free.x.abs().max() > 1
    torch.testing.assert_close(clipped.x, free.x.clamp(-1, 1), rtol=0, atol=0)
    alpha, sigma = (float(v) for v in schedule(t))
    for prediction in (free, clipped):
        torch.testing.assert_close(alpha * prediction.x + sigma * prediction.eps, x_t, rtol=0, atol=1e-12)
    assert torch.equal(clipped.raw, free.raw)


def test_watcher_sees_the_clipped_prediction():
    pictures = []
    last = DDIM(Leading(), 5, clip=True)(
        denoiser(Linear()), Written(), on_prediction=lambda x_t, t, prediction: pictures.append(prediction.x)
    )
    assert len(pictures) == 5
    assert max(x.abs().max() for x in pictures) <= 1
    torch.testing.assert_close(last, pictures[-1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("sampler", [Ancestral(Leading(), 3), DDIM(Leading(), 3, eta=0.5)])
def test_sampling_records_no_gradient(sampler):
    model = denoiser(Linear())
    model.network.weight.requires_grad_()
    assert not sampler(model, Written()).requires_grad


@pytest.mark.parametrize("steps", [0, -1])
@pytest.mark.parametrize("sampler", [Ancestral, DDIM])
def test_too_few_steps_are_refused(sampler, steps):
    with pytest.raises(UserError, match="steps"):
        sampler(Leading(), steps)
