import pytest
import torch
from torch.optim.lr_scheduler import LinearLR
from training_helpers import QUIET, column, train

from langevin.errors import UserError
from langevin.training.lr_schedule import WarmUp


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
