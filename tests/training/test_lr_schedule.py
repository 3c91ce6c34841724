import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from training_helpers import QUIET, column, differing, train, trained

from langevin.errors import UserError
from langevin.training.lr_schedule import CosineDecay, InverseSqrtDecay, LinearDecay, WarmUp


def test_warm_up_is_linear_then_constant():
    assert [WarmUp(4)(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [WarmUp(5000)(step) for step in (0, 4998, 4999, 10**7)] == [1 / 5000, 4999 / 5000, 1.0, 1.0]


def test_no_warm_up():
    assert [WarmUp(0)(step) for step in (0, 1, 10**6)] == [1.0, 1.0, 1.0]


def test_is_torchs_linear_schedule():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = LinearLR(optimizer, start_factor=1 / 8, total_iters=7)
    for step in range(12):
        assert WarmUp(8)(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_refuses_negative_steps():
    with pytest.raises(UserError, match="steps is -1; allowed: at least 0"):
        WarmUp(-1)


def test_cosine_is_torchs_after_its_linear_one():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    linear = LinearLR(optimizer, start_factor=1 / 8, total_iters=7)
    theirs = SequentialLR(optimizer, [linear, CosineAnnealingLR(optimizer, T_max=12, eta_min=0.1)], milestones=[8])
    for step in range(20):
        assert CosineDecay(8, 20, final=0.1)(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_cosine_without_warm_up_halves_midway_and_stays_at_its_end():
    schedule = CosineDecay(0, 100)
    assert [schedule(step) for step in (0, 50, 100, 10**6)] == pytest.approx([1, 0.5, 0, 0], abs=1e-15)


@pytest.mark.parametrize("final", [0.0, 0.25])
def test_linear_is_torchs_after_its_warm_up(final):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    rise = LinearLR(optimizer, start_factor=1 / 8, total_iters=7)
    fall = LinearLR(optimizer, start_factor=1.0, end_factor=final, total_iters=12)
    theirs = SequentialLR(optimizer, [rise, fall], milestones=[8])
    for step in range(24):
        assert LinearDecay(8, 20, final)(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12)
        optimizer.step()
        theirs.step()


def test_inverse_square_root():
    schedule = InverseSqrtDecay(4, decay_from=100)
    assert [schedule(step) for step in (0, 3, 99, 399, 9999)] == [0.25, 1.0, 1.0, 0.5, 0.1]
    transformer = [min((step + 1) / 50, (50 / (step + 1)) ** 0.5) for step in range(300)]  # over its largest value
    assert [InverseSqrtDecay(50, decay_from=50)(step) for step in range(300)] == pytest.approx(transformer, rel=1e-12)


@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        ("inverse_sqrt", "steps=-1", "is -1; allowed: at least 0"),
        ("cosine", "steps=6", "total_steps: is 6; allowed: above steps=6, which warm up"),
        ("linear", "steps=6", "total_steps: is 6; allowed: above steps=6, which warm up"),
        ("cosine", "final=1.5", "is 1.5; allowed: a number, at least 0, at most 1"),
        ("inverse_sqrt", "decay_from=0", "is 0; allowed: a whole number, at least 1"),
    ],
)
def test_refuses_what_is_out_of_range(tmp_path, option, path, message):
    run = train(tmp_path, f"lr_schedule={option}", f"lr_schedule.{path}", status=1)
    (line,) = [line for line in run.err.splitlines() if line.startswith("  lr_schedule.")]
    assert message in line
    assert "Traceback" not in run.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("lr_schedule=cosine",),
        pytest.param(("lr_schedule=linear",), marks=pytest.mark.slow),
        pytest.param(("lr_schedule=inverse_sqrt", "lr_schedule.decay_from=4"), marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_has_the_same_rates(tmp_path, options):
    """A decay ends with the run: a shorter one has another schedule, unless its end is given."""
    end = ("lr_schedule.total_steps=6",) if "inverse" not in options[0] else ()
    options = (*QUIET, "lr_schedule.steps=2", *options, *end)
    whole = train(tmp_path, *options, name="whole")
    assert column(whole.rows, "train/learning_rate")[6] < 0.9e-3
    train(tmp_path, *options, "trainer.max_steps=3")
    resumed = train(tmp_path, *options)
    assert "from step 3 to 6" in resumed.out
    assert differing(trained(resumed), trained(whole)) == []
    assert resumed.rows == whole.rows


def test_a_cosine_run_of_another_length_is_another_run(tmp_path):
    train(tmp_path, *QUIET, "lr_schedule=cosine", "trainer.max_steps=5")
    refused = train(tmp_path, *QUIET, "lr_schedule=cosine", "trainer.max_steps=6", status=1)
    assert "lr_schedule.total_steps: 5 in the run, 6 now" in refused.err


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_reaches_the_rate_step_by_step(tmp_path, accumulate):
    """The row of step k has the rate that step k was taken with."""
    run = train(
        tmp_path,
        *QUIET,
        "lr_schedule.steps=3",
        "optimizer.lr=3e-3",
        "trainer.max_steps=5",
        f"trainer.accumulate_grad_batches={accumulate}",
    )
    rates = column(run.rows, "train/learning_rate")
    assert rates == pytest.approx({1: 1e-3, 2: 2e-3, 3: 3e-3, 4: 3e-3, 5: 3e-3}, rel=1e-6)
