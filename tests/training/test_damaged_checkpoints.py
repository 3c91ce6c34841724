"""Checkpoints that a disk has damaged: the run resumes from the one before, or refuses; nothing is overwritten."""

import shutil

import pytest
from helpers.commands import call
from training_helpers import QUIET, differing, train, trained

from langevin.checkpoint import damage_of, last_checkpoints, read_checkpoint
from langevin.errors import UserError


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    """One bit of the weights."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {"truncated": truncated, "one bit flipped": flipped, "empty": lambda content: b""}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of six steps, saved at each, without a mishap."""
    return train(tmp_path_factory.mktemp("whole"), *QUIET, "callbacks.checkpoint.every_minutes=1e-9")


@pytest.fixture(scope="module")
def at_five(tmp_path_factory):
    """The same at its fifth step, with the fourth before it."""
    run = train(
        tmp_path_factory.mktemp("five"), *QUIET, "callbacks.checkpoint.every_minutes=1e-9", "trainer.max_steps=5"
    )
    assert [read_checkpoint(path)["global_step"] for path in last_checkpoints(run.directory / "checkpoints")] == [5, 4]
    return run


@pytest.fixture
def run(at_five, tmp_path):
    """A copy of it to damage."""
    return at_five._replace(directory=shutil.copytree(at_five.directory, tmp_path / "run"))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_run_resumes_from_the_one_before(run, whole, damage, tmp_path):
    damaged = damage(run.last.read_bytes())
    run.last.write_bytes(damaged)
    assert damage_of(run.last) is not None
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(run.last)
    with pytest.warns(UserWarning, match=r"last\.ckpt is damaged; using .*last-1\.ckpt, the one before"):
        resumed = train(tmp_path, *QUIET, "callbacks.checkpoint.every_minutes=1e-9")
    assert "from step 4 to 6" in resumed.out
    assert differing(trained(resumed), trained(whole)) == []
    assert resumed.rows == whole.rows
    aside = run.last.with_suffix(".damaged")
    assert aside.read_bytes() == damaged, "it may be of use to somebody"
    assert [read_checkpoint(path)["global_step"] for path in last_checkpoints(aside.parent)] == [6, 5]


def test_sampling_takes_the_one_before_too(run):
    run.last.write_bytes(truncated(run.last.read_bytes()))
    with pytest.warns(UserWarning, match="is damaged; using"):
        result = call("sample", f"checkpoint={run.directory}", "num_samples=2")
    assert result.status == 0, result.err
    assert "of step 4" in result.out
    named = call("sample", f"checkpoint={run.last}", "num_samples=2", "overwrite=true")
    assert named.status == 1
    assert "it is damaged" in named.err


def test_when_all_are_damaged_nothing_is_touched(run, tmp_path):
    contents = {path: truncated(path.read_bytes()) for path in last_checkpoints(run.directory / "checkpoints")}
    for path, content in contents.items():
        path.write_bytes(content)
    refused = train(tmp_path, *QUIET, status=1)
    assert "last.ckpt is damaged" in refused.err
    assert "no intact one is kept before it" in refused.err
    assert {path: path.read_bytes() for path in last_checkpoints(run.directory / "checkpoints")} == contents


def test_a_checkpoint_of_another_config_is_refused(run, tmp_path):
    other = train(tmp_path, *QUIET, "seed=1", "trainer.max_steps=1", name="other")
    before = run.last.read_bytes()
    shutil.copy(other.last, run.last)
    refused = train(tmp_path, *QUIET, status=1)
    assert "is of a run with another config" in refused.err
    assert "seed: 1 in the run, 0 now" in refused.err
    assert run.last.read_bytes() == other.last.read_bytes() != before


@pytest.mark.slow
def test_as_many_ends_as_asked_for_are_kept(tmp_path):
    often = (*QUIET, "callbacks.checkpoint.every_minutes=1e-9")
    run = train(tmp_path, *often, "callbacks.checkpoint.keep_last=3")
    directory = run.directory / "checkpoints"
    assert [path.name for path in last_checkpoints(directory)] == ["last.ckpt", "last-1.ckpt", "last-2.ckpt"]
    assert [read_checkpoint(path)["global_step"] for path in last_checkpoints(directory)] == [6, 5, 4]
    train(tmp_path, *often, "callbacks.checkpoint.keep_last=1", "trainer.max_steps=7")
    assert [path.name for path in last_checkpoints(directory)] == ["last.ckpt"]
    assert sorted(path.name for path in directory.iterdir()) == ["last.ckpt"]
