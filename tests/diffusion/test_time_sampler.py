import math

import hydra
import numpy as np
import pytest
import torch
from diffusion_helpers import times
from omegaconf import OmegaConf
from scipy import stats

from langevin.config.validate import CONF, options
from langevin.diffusion.schedules import edm
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp import VP
from langevin.diffusion.time_sampler import LogitNormal, LogNormal, LossAware, Stratified, UniformTimes
from langevin.errors import UserError

CONTINUOUS = [FlowSchedule(), edm.EDMSchedule(), VP(), VE()]
DISCRETE = [Linear(1000), Cosine(10), FlowSchedule(7), VE(3)]


def name(part):
    return f"{type(part).__name__}-{getattr(part, 'num_steps', '')}"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(sampler, n, schedule, seed=0):
    return sampler.sample(n, schedule, generator(seed))


def uniform_p(t, schedule):
    return stats.kstest(t.numpy(), stats.uniform(schedule.t_min, schedule.t_max - schedule.t_min).cdf).pvalue


@pytest.mark.parametrize("schedule", CONTINUOUS + DISCRETE, ids=name)
@pytest.mark.parametrize("option", options("time_sampler"))
def test_any_sampler_draws_times_of_the_schedule(option, schedule):
    sampler = hydra.utils.instantiate(OmegaConf.load(CONF / "time_sampler" / f"{option}.yaml"))
    try:
        sampler.check(schedule)
    except UserError:
        assert schedule.num_steps is None
        assert sampler.loss_aware
        return
    t, importance = draw(sampler, 5000, schedule)
    assert (t.dtype, t.shape) == (importance.dtype, importance.shape) == (torch.float64, (5000,))
    assert schedule.t_min <= t.min()
    assert t.max() <= schedule.t_max
    if schedule.num_steps is not None:
        assert torch.equal(t, t.round())
    assert (importance > 0).all()
    assert importance.isfinite().all()
    assert len(t.unique()) > 2  # it does draw
    # A function of the generator alone: the global one is neither read nor moved.
    torch.manual_seed(1)
    before = torch.get_rng_state()
    again = draw(sampler, 5000, schedule)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again[0], t)
    assert torch.equal(again[1], importance)
    assert not torch.equal(draw(sampler, 5000, schedule, seed=1)[0], t)


@pytest.mark.parametrize("sampler", [UniformTimes(), Stratified()], ids=name)
@pytest.mark.parametrize("schedule", DISCRETE, ids=name)
def test_discrete_times_are_one_to_t_equally_often(sampler, schedule):
    drawn = generator()
    t = torch.cat([sampler.sample(25, schedule, drawn)[0] for _ in range(800)])
    values, counts = np.unique(t.numpy(), return_counts=True)
    assert values.tolist() == list(range(1, schedule.num_steps + 1))
    if isinstance(sampler, UniformTimes):
        assert stats.chisquare(counts).pvalue > 0.001
    else:  # the counts vary less than by chance
        assert stats.chisquare(counts).statistic < schedule.num_steps


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=name)
def test_uniform_is_so_on_the_clock(schedule):
    t, importance = draw(UniformTimes(), 20_000, schedule)
    assert uniform_p(t, schedule) > 0.001
    assert torch.equal(importance, torch.ones_like(t))


@pytest.mark.parametrize(("u", "first", "last"), [(0.0, 1e-5, 1), (1 - 2**-53, 1, 10)])
def test_the_ends_are_in_range(monkeypatch, u, first, last):
    monkeypatch.setattr(torch, "rand", lambda *size, dtype, generator: torch.tensor(u, dtype=dtype).expand(*size))
    assert UniformTimes().sample(2, FlowSchedule(), generator())[0].tolist() == pytest.approx([first] * 2, rel=1e-9)
    assert UniformTimes().sample(2, FlowSchedule(10), generator())[0].tolist() == [last] * 2
    t = Stratified().sample(10, FlowSchedule(10), generator())[0]
    assert (t.min(), t.max()) == (1, 10)


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=name)
@pytest.mark.parametrize("n", [1, 8, 48])
def test_each_stratum_has_one_time(schedule, n):
    """Of the whole batch of all ranks, which is what a sampler draws; and each place in it is itself uniform."""
    drawn = generator()
    batches = torch.stack([Stratified().sample(n, schedule, drawn)[0] for _ in range(2000)])
    stratum = (batches - schedule.t_min) / (schedule.t_max - schedule.t_min) * n
    assert torch.equal(stratum.floor().sort(1).values, torch.arange(n, dtype=torch.float64).expand(2000, n))
    assert (torch.diff(stratum.sort(1).values, dim=1) - 1).abs().max() < 1e-9 if n > 1 else True
    for place in {0, n // 2, n - 1}:
        assert uniform_p(batches[:, place], schedule) > 0.001


def test_strata_are_shuffled():
    """So that no rank has the noisy half, and no class of an ordered batch its own times."""
    drawn = generator()
    batches = torch.stack([Stratified().sample(8, FlowSchedule(), drawn)[0] for _ in range(2000)])
    assert torch.corrcoef(batches.T)[0, 1:].abs().max() < 0.25  # -1 / 7 without replacement
    assert (batches[:, :4].mean(1) > 0.5).double().mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("mean_and_std", [(-1.2, 1.2), (0.5, 0.7)])
@pytest.mark.parametrize("schedule", [edm.EDMSchedule(), VP(), VE(), FlowSchedule()], ids=name)
def test_the_log_of_the_noise_to_signal_ratio_is_normal(schedule, mean_and_std):
    t, importance = draw(LogNormal(*mean_and_std), 20_000, schedule)
    alpha, sigma = schedule(t)
    within = (t > schedule.t_min) & (t < schedule.t_max)
    assert within.double().mean() > 0.98  # of VP and VE, a little lies beyond the first level
    ratio = torch.log(sigma / alpha)[within].numpy()
    ends = (np.log(schedule(times(end)).ratio.item()) for end in (schedule.t_min, schedule.t_max))
    low, high = ((end - mean_and_std[0]) / mean_and_std[1] for end in ends)
    assert stats.kstest(ratio, stats.truncnorm(low, high, *mean_and_std).cdf).pvalue > 0.001
    assert torch.equal(importance, torch.ones_like(t))


def test_log_normal_takes_the_nearest_of_discrete_times():
    schedule, (mean, std) = Linear(20, rescale=False), (-1.2, 1.2)
    t, _ = draw(LogNormal(mean, std), 20_000, schedule)
    between = torch.log(schedule(torch.arange(1.5, 20, dtype=torch.float64)).ratio).numpy()
    share = np.diff(stats.norm(mean, std).cdf(np.concatenate([[-np.inf], between, [np.inf]])))
    counts = np.bincount(t.long().numpy(), minlength=21)[1:]
    assert stats.chisquare(counts, share * len(t)).pvalue > 0.001


@pytest.mark.parametrize("mean_and_std", [(0.0, 1.0), (0.8, 0.6)])
@pytest.mark.parametrize("schedule", CONTINUOUS, ids=name)
def test_the_logit_of_time_is_normal(schedule, mean_and_std):
    t, importance = draw(LogitNormal(*mean_and_std), 20_000, schedule)
    u = (t - schedule.t_min) / (schedule.t_max - schedule.t_min)
    assert stats.kstest(torch.logit(u).numpy(), stats.norm(*mean_and_std).cdf).pvalue > 0.001
    assert torch.equal(importance, torch.ones_like(t))


def test_logit_normal_on_discrete_times():
    t, _ = draw(LogitNormal(0.5, 1.0), 20_000, FlowSchedule(20))
    ends = torch.logit(torch.arange(21, dtype=torch.float64) / 20).numpy()
    counts = np.bincount(t.long().numpy(), minlength=21)[1:]
    assert stats.chisquare(counts, np.diff(stats.norm(0.5, 1).cdf(ends)) * len(t)).pvalue > 0.001


T = 5
SCHEDULE = Linear(T, beta_end=0.002)
ALL = torch.arange(1, T + 1, dtype=torch.float64)


def warm(history=3, uniform=0.01, losses=None):
    """A sampler that has met every time, each with losses of its own; and the losses (history, T)."""
    sampler = LossAware(history, uniform)
    draw(sampler, 1, SCHEDULE)
    losses = torch.rand(history, T, generator=generator(4), dtype=torch.float64) * ALL**2 if losses is None else losses
    for row in losses:
        sampler.update(ALL, row)
    return sampler, losses


def improved_ddpm(losses, uniform):
    """Section 3.3 of Improved DDPM, with the uniform share of its code: losses (history, T)."""
    root = np.sqrt(np.mean(np.asarray(losses) ** 2, axis=0))
    return (1 - uniform) * root / root.sum() + uniform / T


def test_once_warm_it_draws_by_the_root_mean_square_of_the_losses():
    sampler, losses = warm()
    expected = improved_ddpm(losses, 0.01)
    assert expected.max() > 5 * expected.min()
    np.testing.assert_allclose(sampler.probabilities(SCHEDULE).numpy(), expected, rtol=1e-12)
    t, importance = draw(sampler, 50_000, SCHEDULE)
    counts = np.bincount(t.long().numpy(), minlength=T + 1)[1:]
    assert stats.chisquare(counts, expected * len(t)).pvalue > 0.001
    np.testing.assert_allclose(importance.numpy(), 1 / (T * expected[t.long().numpy() - 1]), rtol=1e-12)


def test_until_then_it_is_uniform():
    sampler = LossAware(history=2)
    for met in (ALL, ALL[:-1]):
        t, importance = draw(sampler, 20_000, SCHEDULE)
        assert stats.chisquare(np.bincount(t.long().numpy(), minlength=T + 1)[1:]).pvalue > 0.001
        torch.testing.assert_close(importance, torch.ones_like(t))
        sampler.update(met, met)
    assert len(sampler.probabilities(SCHEDULE).unique()) == 1
    sampler.update(ALL[-1:], ALL[-1:])
    assert len(sampler.probabilities(SCHEDULE).unique()) == T


@pytest.mark.parametrize("seed", [0, 1])
def test_importance_makes_the_mean_loss_that_of_uniform_times(seed):
    sampler, _ = warm()
    loss = torch.tensor([0.3, 5.0, -2.0, 40.0, 7.0], dtype=torch.float64)
    t, importance = draw(sampler, 200_000, SCHEDULE, seed)
    weighted = importance * loss[t.long() - 1]
    error = weighted.std().item() / math.sqrt(len(t))
    assert weighted.mean().item() == pytest.approx(loss.mean().item(), abs=4 * error)
    assert error < 0.06
    assert abs(loss[t.long() - 1].mean() - loss.mean()) > 1  # what it would be without


def test_it_lowers_the_variance_of_the_bound():
    """Which is what it is for: of losses that are as large as the history says."""
    typical = ALL**2
    sampler, _ = warm(losses=typical.expand(3, T))
    t, importance = draw(sampler, 20_000, SCHEDULE)
    u, _ = draw(UniformTimes(), 20_000, SCHEDULE)
    assert (importance * typical[t.long() - 1]).std() < 0.1 * typical[u.long() - 1].std()


def test_the_history_rolls_over():
    sampler, losses = warm(history=3)
    newer = torch.rand(2, T, generator=generator(8), dtype=torch.float64)
    for row in newer:
        sampler.update(ALL, row)
    np.testing.assert_allclose(
        sampler.probabilities(SCHEDULE).numpy(), improved_ddpm(torch.cat([losses[2:], newer]), 0.01), rtol=1e-12
    )


def test_one_batch_may_hold_a_time_more_often_than_the_history():
    sampler, losses = warm(history=2)
    seven = torch.arange(7, dtype=torch.float64)
    sampler.update(torch.full((7,), 2.0, dtype=torch.float64), seven)
    kept = losses.clone()
    kept[:, 1] = seven[-2:]
    np.testing.assert_allclose(sampler.probabilities(SCHEDULE).numpy(), improved_ddpm(kept, 0.01), rtol=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_losses_that_are_not_finite_teach_nothing(bad):
    sampler, losses = warm()
    sampler.update(times(1.0, 2.0, 3.0), times(bad, 0.5, bad))
    kept = losses.clone()
    kept[0, 1] = 0.5  # the oldest of its history
    np.testing.assert_allclose(sampler.probabilities(SCHEDULE).numpy(), improved_ddpm(kept, 0.01), rtol=1e-12)


def test_losses_of_zero_leave_it_uniform():
    sampler, _ = warm(losses=torch.zeros(3, T, dtype=torch.float64))
    assert sampler.probabilities(SCHEDULE).tolist() == [1 / T] * T


@pytest.mark.parametrize("met", ["nothing", "a few", "all"])
def test_its_state_goes_into_a_file_and_back(met, tmp_path):
    sampler = warm()[0] if met == "all" else LossAware(3, 0.01)
    if met == "a few":
        draw(sampler, 1, SCHEDULE)
        sampler.update(times(1.0, 4.0), times(2.0, 3.0))
    torch.save(sampler.state_dict(), tmp_path / "state")
    other = LossAware(3, 0.01)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for step in range(4):
        t, importance = draw(sampler, 20, SCHEDULE, step)
        again, importance_again = draw(other, 20, SCHEDULE, step)
        assert torch.equal(again, t)
        assert torch.equal(importance_again, importance)
        for each in (sampler, other):
            each.update(t, t.square() + step)
    assert torch.equal(other.probabilities(SCHEDULE), sampler.probabilities(SCHEDULE))
    assert len(sampler.probabilities(SCHEDULE).unique()) > 1


def test_loss_aware_needs_steps():
    with pytest.raises(UserError, match=r"the schedule is continuous; set schedule\.num_steps, or take another"):
        LossAware().check(edm.EDMSchedule())
    LossAware().check(Linear())
