"""The debug presets: runs of their own, begun anew each time."""

import csv

import pytest
from helpers.commands import call

SMALL = (
    "experiment=digits",
    "model.channels=32",
    "model.channel_multipliers=[1]",
    "trainer.accelerator=cpu",
)


def debug(folder, *options, status=0):
    result = call("train", *SMALL, *options, f"output_dir={folder}")
    assert result.status == status, result.out + result.err
    return result


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_fast_goes_through_all_that_a_run_does(tmp_path):
    debug(tmp_path, "debug=fast", "callbacks=[default,trajectory]", "name=mine")
    run = tmp_path / "debug_fast-mine"
    found = {path.name for path in run.rglob("*") if path.is_file()}
    assert {"last.ckpt", "samples_00000004.png", "trajectory_00000002.png", "metrics.csv", "config.yaml"} <= found
    values = {name for row in rows(run) for name, value in row.items() if value}
    assert {"train/loss", "val/loss", "eval/class_accuracy", "train/images_per_second"} <= values
    assert [row["step"] for row in rows(run)] == ["1", "2", "3", "4"]


@pytest.mark.slow
def test_a_debug_run_is_not_the_real_one(tmp_path):
    """Neither does it take the real run's name, nor is it resumed."""
    real = ("batch_size=8", "trainer.max_steps=2", "callbacks=[checkpoint]", "metrics=[]", "name=mine")
    debug(tmp_path, *real)
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*"))
    quick = ("debug=fast", *real)
    for _ in range(2):
        assert f"{tmp_path}/debug_fast-mine: from step 0 to 2" in debug(tmp_path, *quick).out
        assert len(rows(tmp_path / "debug_fast-mine")) == 2
        (tmp_path / "debug_fast-mine" / "left").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["debug_fast-mine", "mine"]
    assert sorted(path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")) == before
    debug(tmp_path, *quick)
    assert not (tmp_path / "debug_fast-mine" / "left").exists()


def test_a_run_without_a_name_has_one_that_begins_with_debug(tmp_path):
    debug(tmp_path, "debug=fast", "metrics=[]", "callbacks=[checkpoint]")
    (run,) = tmp_path.iterdir()
    assert run.name.startswith("debug_fast-digits-unet_small-cosine-")


@pytest.mark.parametrize(
    "options",
    [
        ("task=classifier", "classifier.channels=32", "classifier.channel_multipliers=[1]"),
        pytest.param(
            ("data=toy", "model=mlp", "conditions=[]", "metrics=[energy_distance]", "callbacks=[checkpoint]"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["classifier", "vectors"],
)
def test_fast_sets_fields_of_parts_that_are_there_alone(tmp_path, options):
    result = call("train", "trainer.accelerator=cpu", *options, "debug=fast", f"output_dir={tmp_path}")
    assert result.status == 0, result.err
    (run,) = tmp_path.iterdir()
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert "fid" not in (run / "config.yaml").read_text().replace("fidelity", "")


@pytest.mark.slow
def test_overfit_learns_a_few_samples(tmp_path):
    debug(tmp_path, "debug=overfit", "metrics=[]", "name=few", "model.channels=64")
    losses = [float(row["train/loss"]) for row in rows(tmp_path / "debug_overfit-few") if row["train/loss"]]
    assert sum(losses[-5:]) < 0.35 * sum(losses[:5])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profiler", "words"), [("pytorch", "aten::convolution"), ("simple", "run_training_batch"), ("advanced", "cumtime")]
)
def test_a_profile_is_written(tmp_path, profiler, words):
    options = ("debug=profile", f"trainer.profiler={profiler}", "metrics=[]", "callbacks=[checkpoint]", "batch_size=8")
    result = debug(tmp_path, *options, "name=one")
    folder = tmp_path / "debug_profile-one" / "profile"
    assert f"the profile is in {folder}" in result.out
    assert words in (folder / "fit-profile.txt").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["+trainer.fast_dev_run=true"], "trainer.fast_dev_run: no such option; instead, there is debug=fast"),
        (["trainer.fast_dev_run=true"], "trainer.fast_dev_run: no such option; instead, there is debug=fast"),
        (["evaluation=null"], "evaluation=null: leave it out; instead, there is metrics=[]"),
        (["debug=quick"], "fast"),
        (["debug=overfit", "overfit_samples=0"], "overfit_samples: is 0; allowed: a whole number, at least 1"),
        (["debug=fast", "callbacks=[checkpoint]", "callbacks.samples.columns=2"], "callbacks.samples: is not chosen"),
    ],
)
def test_a_mistake_is_reported(tmp_path, options, message):
    result = debug(tmp_path, *options, status=1)
    assert message in result.err
    assert "Traceback" not in result.err
