"""How the commands report mistakes: all at once, a line each, and nothing on the disk is touched."""

import textwrap

import pytest
from helpers.commands import call

# One of each kind, none of which stands in the way of another; some need what others choose.
TOGETHER = {
    "foo=1": "foo",
    "batch_size=0": "batch_size",
    "data.image_size=0": "data.image_size",
    "model.block=convnext": "model.block",
    "schedule.num_step=10": "schedule.num_step",
    "parameterization._target_=langevin.diffusion.parameterization.Epsilon": "parameterization._target_",
    "sampler.steps=0": "sampler.steps",
    "sampler.eta=2": "sampler.eta",
    "guidance=classifier_free": "guidance",
    "ema.max_decay=1": "ema.max_decay",
    "optimizer.lr=fast": "optimizer.lr",
    "lr_schedule.steps=soon": "lr_schedule.steps",
    "trainer.max_steps=0": "trainer.max_steps",
    "callbacks.samples.num_samples=0": "callbacks.samples.num_samples",
    "callbacks.progress.every_n_steps=0": "callbacks.progress.every_n_steps",
    "metrics=[class_accuracy]": None,
    "evaluation.num_samples=0": "evaluation.num_samples",
    "loader.num_workers=-1": "loader.num_workers",
}


def test_all_are_reported_at_once_and_nothing_is_touched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path / "cache"))
    result = call("train", *TOGETHER)
    assert result.status == 1
    assert "Traceback" not in result.err + result.out
    lines = result.err.splitlines()
    expected = {path for path in TOGETHER.values() if path is not None}
    assert lines[0] == f"error: {len(expected)} mistakes in the config:"
    assert {line.split(": ")[0].strip() for line in lines[1:]} == expected
    assert len([row for line in lines for row in textwrap.wrap(line, 100)]) <= 50
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_cannot_be_resolved_is_reported_with_what_shows_without_building(tmp_path, monkeypatch):
    """What it would decide is not known, so nothing is built: what is wrong with `ema.max_decay` shows afterwards."""
    monkeypatch.chdir(tmp_path)
    result = call("train", "seed=${nowhere}", "optimizer.lr=fast", "ema.max_decay=1")
    assert result.status == 1
    assert [line.split(": ")[0] for line in result.err.splitlines()] == ["error", "  seed", "  optimizer.lr"]
    assert "seed: is ${nowhere}, which cannot be resolved" in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("schedule=cosin", ["schedule=cosin: no such option (did you mean cosine?); allowed: cosine, ", "linear"]),
        ("metrics=[fidd]", ["metrics=fidd: no such option (did you mean fid?); allowed: class_accuracy, "]),
        ("experiment=digit", ["experiment=digit: no such option (did you mean digits?)"]),
        ("batch_size", ["batch_size: has no value; options are given as NAME=VALUE, such as data=digits"]),
        ("--data=digits", ["--data=digits: there is no such flag; options are given without dashes, as in data=VALUE"]),
        ("schedule=linear,cosine", ["schedule=linear,cosine: has several values; for a sweep over them add -m"]),
        ("optimizer.lr=1e-3,1e-4", ["optimizer.lr=1e-3,1e-4: has several values; for a sweep over them add -m"]),
    ],
)
def test_a_slip_on_the_command_line_is_plain(override, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("train", override)
    assert result.status == 1
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["train", "sample", "evaluate"])
def test_a_mistake_in_a_commands_own_options(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(command, "batch_size=few", "batchsize=3", "checkpoint=x", "samples=y")
    assert result.status == 1
    assert "  batch_size: is 'few'; allowed: a whole number, at least 1\n" in result.err
    assert "  batchsize: no such option (did you mean batch_size?); allowed: " in result.err
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []
