"""What training returns to Hydra's sweepers."""

import pytest
from helpers.commands import TINY, call
from hydra.core.plugins import Plugins

from langevin.runs import find_runs

QUIET = ("callbacks=[checkpoint]", *(option for option in TINY if not option.startswith(("callbacks", "sampler"))))


@pytest.fixture
def returned(monkeypatch):
    """What the jobs of a sweep have returned, as Hydra hands it to the sweeper."""
    values, make = [], Plugins.instantiate_launcher

    def watched(self, *arguments, **named):
        launcher = make(self, *arguments, **named)
        launch = launcher.launch

        def launched(*given, **options):
            done = launch(*given, **options)
            values.extend(each.return_value for each in done)
            return done

        launcher.launch = launched
        return launcher

    monkeypatch.setattr(Plugins, "instantiate_launcher", watched)
    return values


def test_a_sweeper_gets_the_last_value(tmp_path, returned):
    options = (*QUIET, "optimizer.lr=1e-4,1e-2", "lr_schedule.steps=0", f"output_dir={tmp_path}")
    for name in ("train/loss", "train/lo*"):  # the second time the runs are done
        result = call("train", "-m", *options, f"optimized_metric={name}")
        assert result.status == 0, result.err
    (runs,) = find_runs(tmp_path).values()
    assert sorted(returned[:2]) == sorted(run.metrics["train/loss"].value for run in runs)
    assert returned[:2] == returned[2:]
    assert returned[0] != returned[1]


def test_nothing_is_returned_where_nothing_is_named(tmp_path, returned):
    call("train", "-m", *QUIET, f"output_dir={tmp_path}")
    assert returned == [None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["optimized_metric=val/los", "trainer.val_check_interval=2"],
            "optimized_metric: is val/los, which nothing logs; allowed: train/loss, train/mse, train/grad_norm, "
            "train/learning_rate, val/loss, val/mse",
        ),
        (["optimized_metric=eval/fid@8"], "there is no evaluation: choose metrics=[...]"),
        (
            ["optimized_metric=eval/fid@9", "metrics=[fid,class_accuracy]", "evaluation.num_samples=8"],
            "allowed: train/loss, train/mse, train/grad_norm, train/learning_rate, eval/fid@8, eval/fd_*@8, "
            "eval/class_accuracy",
        ),
    ],
)
def test_a_value_that_nothing_logs_is_refused_before_data_is_read(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr("langevin.data.module.DataModule.prepare_data", lambda self: pytest.fail("data was read"))
    result = call("train", *QUIET, *options, f"output_dir={tmp_path}")
    assert result.status == 1
    assert message in result.err
