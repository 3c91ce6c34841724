"""Time samplers at work: what they learn is saved, shared by all processes, and does not reach the validation."""

import shutil

import numpy as np
import pytest
import torch
from scipy import stats
from training_helpers import (
    LOSS_AWARE,
    QUIET,
    VALIDATED,
    column,
    differing,
    train,
    train_on_two,
    trained,
)

from langevin.assembly.saved import load_model
from langevin.checkpoint import read_checkpoint
from langevin.diffusion.objective import TimedObjective, VLBObjective
from langevin.diffusion.time_sampler import LogNormal, LossAware, UniformTimes
from langevin.training.module import DiffusionModule

OPTIONS = (*QUIET, *LOSS_AWARE)
T, HISTORY = 4, 2


def learnt(path):
    """What the time sampler of a checkpoint knows."""
    return read_checkpoint(path)["time_sampler"]


def probabilities(losses):
    """Improved DDPM, section 3.3, with the share of uniform times of conf/time_sampler/loss_aware.yaml."""
    size = losses.square().mean(1).sqrt()
    return 0.999 * size / size.sum() + 0.001 / T


def assert_learnt(state, met):
    """That a state holds the last losses at each time of those met, [(t (n,), loss (n,)), ...], in their order."""
    pairs = [(int(time), float(loss)) for t, losses in met for time, loss in zip(t, losses, strict=True)]
    for time in range(1, T + 1):
        of_time = [loss for at, loss in pairs if at == time]
        assert len(of_time) == state["counts"][time - 1] >= HISTORY
        assert sorted(state["losses"][time - 1].tolist()) == sorted(of_time[-HISTORY:])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Eight steps at once, and the checkpoints of every other."""
    return train(
        tmp_path_factory.mktemp("whole"), *OPTIONS, "trainer.max_steps=8", "callbacks.checkpoint.keep_every_n_steps=2"
    )


def kept(run, step):
    return run.directory / "checkpoints" / f"step_{step:08d}.ckpt"


def test_it_is_warm_within_a_few_batches(whole):
    """What the tests below rest on: from step 4 at the latest, times are drawn by their losses."""
    assert learnt(kept(whole, 4))["counts"].min() >= HISTORY
    expected = probabilities(learnt(kept(whole, 4))["losses"])
    assert expected.max() > 1.5 * expected.min()
    assert learnt(whole.last)["counts"].sum() == 8 * 8


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)])
def test_a_stopped_run_resumes_to_the_same_end(tmp_path, whole, step):
    train(tmp_path, *OPTIONS, f"trainer.max_steps={step}")
    resumed = train(tmp_path, *OPTIONS, "trainer.max_steps=8")
    assert f"from step {step} to 8" in resumed.out
    assert differing(trained(resumed), trained(whole)) == []
    assert differing(learnt(resumed.last), learnt(whole.last)) == []
    assert resumed.rows == whole.rows


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4, 6])
def test_so_does_one_that_is_killed(tmp_path, whole, step):
    """With what lay on the disk when that step was saved; the last steps of its log are trained again."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copyfile(kept(whole, step), tmp_path / "run" / "checkpoints" / "last.ckpt")
    shutil.copyfile(whole.directory / "metrics.csv", tmp_path / "run" / "metrics.csv")
    resumed = train(tmp_path, *OPTIONS, "trainer.max_steps=8")
    assert f"from step {step} to 8" in resumed.out
    assert differing(trained(resumed), trained(whole)) == []
    assert differing(learnt(resumed.last), learnt(whole.last)) == []
    assert resumed.rows == whole.rows


@pytest.mark.slow
def test_without_what_it_has_learnt_it_would_not(tmp_path, monkeypatch, whole):
    """So the two tests above show something."""
    monkeypatch.setattr(LossAware, "load_state_dict", lambda self, state: None)
    train(tmp_path, *OPTIONS, "trainer.max_steps=5")
    resumed = train(tmp_path, *OPTIONS, "trainer.max_steps=8")
    assert "model.network.first.weight" in differing(trained(resumed), trained(whole))


def test_a_checkpoint_from_before_the_first_batch(tmp_path, monkeypatch):
    def save(self):
        self.trainer.save_checkpoint(tmp_path / "early.ckpt")

    monkeypatch.setattr(DiffusionModule, "on_train_start", save)
    train(tmp_path, *OPTIONS, "trainer.max_steps=1")
    assert torch.load(tmp_path / "early.ckpt", weights_only=True)["time_sampler"] == {"losses": None, "counts": None}


def test_a_model_is_rebuilt_from_such_a_checkpoint(whole):
    assert torch.load(whole.last, weights_only=True)["time_sampler"]["losses"].shape == (T, HISTORY)
    assert load_model(whole.last).step == 8


def test_a_sampler_that_learns_nothing_saves_nothing(tmp_path):
    assert learnt(train(tmp_path, *QUIET, "trainer.max_steps=1").last) == {}


def test_losses_are_weighed_and_learnt_from_unweighed(tmp_path, monkeypatch):
    """The logged loss is the weighted mean; the history is of the losses as they are."""
    met, weights = [], []
    bound, sample = VLBObjective.terms, LossAware.sample

    def watch(self, model, x, noised, cond, t):
        terms = bound(self, model, x, noised, cond, t)
        met.append((t, terms["loss"].detach()))
        return terms

    def draw(self, n, schedule, generator):
        drawn = sample(self, n, schedule, generator)
        weights.append(drawn[1])
        return drawn

    monkeypatch.setattr(VLBObjective, "terms", watch)
    monkeypatch.setattr(LossAware, "sample", draw)
    run = train(tmp_path, *OPTIONS, "trainer.max_steps=8")
    means = [(weight * loss).mean().item() for weight, (_, loss) in zip(weights, met, strict=True)]
    assert list(column(run.rows, "train/loss").values()) == pytest.approx(means, rel=1e-5)
    assert [loss.mean().item() for _, loss in met][-1] != pytest.approx(means[-1], rel=1e-2)
    assert_learnt(learnt(run.last), met)


def drawn_in_validations(monkeypatch, *kinds):
    """What time samplers of some kinds draw in the validations of runs to come: (kind, times, importance)."""
    drawn, training = [], []
    forward = TimedObjective.forward

    def watch(self, *given):
        training[:] = [self.training]
        return forward(self, *given)

    def watched(sample):
        def draw(self, *asked):
            result = sample(self, *asked)
            if training == [False]:
                drawn.append((type(self), *result))
            return result

        return draw

    monkeypatch.setattr(TimedObjective, "forward", watch)
    for kind in kinds:
        monkeypatch.setattr(kind, "sample", watched(kind.sample))
    return drawn


def test_validations_compare_whatever_has_been_learnt(tmp_path, monkeypatch):
    """Times that follow the losses of training would be others every time."""
    drawn = drawn_in_validations(monkeypatch, UniformTimes, LossAware)
    still = train(tmp_path, *OPTIONS, *VALIDATED, "optimizer.lr=0", "trainer.max_steps=6")
    losses = column(still.rows, "val/loss")
    assert list(losses) == [2, 4, 6]
    assert len(set(losses.values())) == 1
    assert learnt(still.last)["counts"].min() >= HISTORY
    assert {kind for kind, _, _ in drawn} == {UniformTimes}
    assert all((importance == 1).all() for _, _, importance in drawn)


def test_a_distribution_that_is_the_objective_is_validated_too(tmp_path, monkeypatch):
    """EDM's times are what its loss means, and validated with."""
    drawn = drawn_in_validations(monkeypatch, LogNormal)
    edm = ("formulation=edm", "schedule=edm", "trainer.limit_val_batches=1.0", "trainer.max_steps=2")
    train(tmp_path, *QUIET, *VALIDATED, *edm)
    assert stats.kstest(torch.cat([t for _, t, _ in drawn]).log().numpy(), stats.norm(-1.2, 1.2).cdf).pvalue > 0.001


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two processes; the run, and what each has kept."""
    folder = tmp_path_factory.mktemp("two")
    run = train_on_two(folder, "trainer.max_steps=6", options=OPTIONS)
    return run, [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes_learn_the_same(two):
    run, ranks = two
    assert differing(ranks[0]["time_sampler"], ranks[1]["time_sampler"]) == []
    assert differing(ranks[0]["time_sampler"], learnt(run.last)) == []
    steps = zip(*(rank["losses"] for rank in ranks), strict=True)
    both = [[torch.stack(pair, 1).flatten() for pair in zip(*shares, strict=True)] for shares in steps]
    assert [len(t) for t, _ in both] == [8] * 6
    assert_learnt(learnt(run.last), both)


@pytest.mark.slow
def test_two_processes_draw_the_same_times_and_share_them(two):
    _, ranks = two
    for all_of_one, all_of_other, *own in zip(
        *(rank["times"] for rank in ranks), *(rank["losses"] for rank in ranks), strict=True
    ):
        assert torch.equal(all_of_one, all_of_other)
        assert torch.equal(torch.stack([t for t, _ in own], 1).flatten(), all_of_one)
        assert len(all_of_one) == 8


@pytest.mark.slow
def test_two_processes_have_the_same_weights(two):
    run, ranks = two
    assert differing(ranks[0]["weights"], ranks[1]["weights"]) == []
    assert differing(ranks[0]["weights"], read_checkpoint(run.last)["state_dict"]) == []
    losses = [torch.stack([loss for _, loss in rank["losses"]]) for rank in ranks]
    assert not torch.equal(*losses), "each has its own images"


@pytest.mark.slow
def test_a_resumed_run_on_two_processes_is_the_undisturbed_run(tmp_path, two):
    train_on_two(tmp_path, "trainer.max_steps=4", options=OPTIONS)
    resumed = train_on_two(tmp_path, "trainer.max_steps=6", options=OPTIONS)
    assert "from step 4 to 6" in resumed.out
    assert differing(trained(resumed), trained(two[0])) == []
    assert differing(learnt(resumed.last), learnt(two[0].last)) == []


@pytest.mark.slow
def test_strata_are_those_of_the_batch_of_all_processes(tmp_path):
    stratified = ("schedule=flow", "parameterization=flow", "time_sampler=stratified", "trainer.max_steps=2")
    train_on_two(tmp_path, *stratified, options=QUIET)
    ranks = [torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1)]
    batches = [torch.cat(shares) for shares in zip(*([t for t, _ in rank["losses"]] for rank in ranks), strict=True)]
    assert [len(t) for t in batches] == [8, 8]
    for t in batches:
        strata = np.floor((t.numpy() - 1e-5) / (1 - 1e-5) * 8).astype(int).tolist()
        assert sorted(strata) == list(range(8))
        assert strata != sorted(strata), "neither process has all the noise"
