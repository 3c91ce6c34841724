import pytest
import torch
from helpers.draws import Given
from helpers.exact import gaussian, gaussian_flow

from langevin.diffusion.draws import SampleDraws
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.vp import VP
from langevin.errors import UserError
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.beginning import Inversion, SDEdit
from langevin.samplers.ddim import DDIM
from langevin.samplers.timestep_spacing import Trailing

SCHEDULES = [Linear(), Cosine(1000), VP(), EDMSchedule(), FlowSchedule()]
X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 1, 2, 2)
EPS = torch.randn(X.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def named(value):
    return type(value).__name__


@pytest.mark.parametrize("schedule", SCHEDULES, ids=named)
@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
def test_the_strength_is_the_share_of_noise(schedule, strength):
    t = torch.tensor(SDEdit(strength).time(schedule), dtype=torch.float64)
    alpha, sigma = schedule(t)
    assert float(sigma / torch.hypot(alpha, sigma)) == pytest.approx(strength, abs=0.01)
    if schedule.num_steps is not None:
        assert t == t.round()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=named)
def test_at_strength_one_it_is_sampling_from_the_prior(schedule):
    model, sampler, draws = (
        gaussian(schedule),
        DDIM(Trailing(), steps=5, eta=0.5),
        (lambda: SampleDraws(1, range(3), (1, 2, 2))),
    )
    start = SDEdit(1.0)(sampler, model, X, None, given := draws())
    assert torch.equal(sampler(model, given, start=start), sampler(model, draws()))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=named)
def test_images_end_where_the_flow_from_their_noisy_versions_ends(schedule):
    """Of normal data, whose probability-flow ODE has a closed solution."""
    mean, std, model = 0.3, 0.4, gaussian(schedule, 0.3, 0.4)
    sampler = DDIM(Trailing(), steps=200)
    start = SDEdit(0.6)(sampler, model, X, None, Given(EPS))
    t, zero = torch.tensor(start.t, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    alpha, sigma = schedule(t)
    torch.testing.assert_close(start.x_t, alpha * X + sigma * EPS)
    expected = gaussian_flow(schedule, start.x_t, t, zero, mean, std) / schedule(zero).alpha
    found = sampler(model, Given(EPS), start=start)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)


def test_the_stronger_the_further():
    model, sampler = gaussian(VP()), DDIM(Trailing(), steps=50)
    moved = [
        float(
            (sampler(model, Given(EPS), start=SDEdit(strength)(sampler, model, X, None, Given(EPS))) - X).abs().mean()
        )
        for strength in (0.02, 0.2, 0.5, 0.8)
    ]
    assert moved == sorted(moved)
    assert moved[0] < 0.05


def test_more_steps_than_are_left_are_refused():
    with pytest.raises(UserError, match=r"sampler.steps is 50; allowed: at least 1 and at most the schedule's 12"):
        SDEdit(0.05).check(DDIM(Trailing(), steps=50), Linear(1000))


def test_only_a_sampler_that_can_be_inverted_is_inverted():
    Inversion().check(DDIM(Trailing()), Linear())
    with pytest.raises(UserError, match="needs an invertible sampler: sampler=ddim"):
        Inversion().check(Ancestral(Trailing()), Linear())
