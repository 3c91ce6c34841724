"""The ends of a run that are kept: files of their own, whatever happens to a save."""

import errno
import os
import resource
import shutil

import pytest
from training_helpers import QUIET, train

from langevin.checkpoint import last_checkpoints, read_checkpoint
from langevin.training.callbacks import checkpoint as module
from langevin.training.callbacks.checkpoint import LAST, NEW, Checkpoint
from langevin.training.checkpoint import AtomicCheckpointIO

OFTEN = (*QUIET, "callbacks.checkpoint.every_minutes=1e-9")


def ends(directory):
    """The contents of the ends by their names, which are files of their own; and nothing else is there."""
    paths = last_checkpoints(directory)
    assert sorted(os.listdir(directory)) == sorted(path.name for path in paths)
    assert len({path.stat().st_ino for path in paths}) == len(paths)
    return {path.name: path.read_text() for path in paths}


@pytest.fixture
def callback(tmp_path):
    """Keeps three ends."""
    (tmp_path / "checkpoints").mkdir()
    return Checkpoint(tmp_path, {}, keep_last=3)


def turn(callback, content):
    (callback.directory / NEW).write_text(content)
    callback._make_last()


def test_ends_make_way(callback):
    seen = []
    for content in "abcde":
        turn(callback, content)
        seen.append("".join(ends(callback.directory).values()))
    assert seen == ["a", "ba", "cba", "dcb", "edc"]
    callback.keep_last = 1
    turn(callback, "f")
    assert ends(callback.directory) == {LAST: "f"}


def test_ends_make_way_without_hard_links(callback, monkeypatch):
    def refuse(*paths):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for content in "abcd":
        turn(callback, content)
    assert "".join(ends(callback.directory).values()) == "dcb"


def test_two_names_of_one_file_as_an_earlier_version_left_them(callback):
    turn(callback, "a")
    os.link(callback.directory / LAST, callback.directory / "last-1.ckpt")
    turn(callback, "b")
    (callback.directory / "last-2.ckpt").unlink()
    assert ends(callback.directory) == {LAST: "b", "last-1.ckpt": "a"}


@pytest.mark.parametrize("has_links", [True, False])
def test_wherever_it_is_cut_short_the_newest_whole_ones_are_there(callback, monkeypatch, has_links):
    """At each call that changes the folder."""
    calls = ("link", "replace", "unlink")
    for at in range(12):
        for path in callback.directory.iterdir():
            path.unlink()
        for name, content in ((LAST, "c"), ("last-1.ckpt", "b"), ("last-2.ckpt", "a"), (NEW, "d")):
            (callback.directory / name).write_text(content)
        left = [at]

        def counted(call, is_refused, left=left):
            def wrapped(*arguments, **options):
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                if is_refused:
                    raise OSError(errno.EPERM, "Operation not permitted")
                return call(*arguments, **options)

            return wrapped

        with monkeypatch.context() as patch:
            for name in calls:
                patch.setattr(os, name, counted(getattr(os, name), name == "link" and not has_links))
            try:
                callback._make_last()
            except KeyboardInterrupt:
                pass
            else:
                break
        paths = last_checkpoints(callback.directory)
        contents = "".join(path.read_text() for path in paths)
        assert len({path.stat().st_ino for path in paths}) == len(paths)
        assert contents in ("cba", "cb", "dba", "dca", "dcb", "db", "dc"), (at, contents)
        assert not has_links or paths[0].name == LAST
    else:
        raise AssertionError


@pytest.mark.slow
def test_a_failed_save_leaves_the_ends_as_they_were(tmp_path):
    """Two good files of their own, of which one may be damaged and the other goes on."""
    run = train(tmp_path, *OFTEN, "trainer.max_steps=3")
    directory = run.directory / "checkpoints"
    before = [
        (path.name, path.stat().st_ino, read_checkpoint(path)["global_step"]) for path in last_checkpoints(directory)
    ]
    assert [step for _, _, step in before] == [3, 2]
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    failed = train(tmp_path, *OFTEN, status=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "make room on the disk" in failed.err
    after = [
        (path.name, path.stat().st_ino, read_checkpoint(path)["global_step"]) for path in last_checkpoints(directory)
    ]
    assert after == before
    assert len(os.listdir(directory)) == 2
    content = run.last.read_bytes()
    run.last.write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match="is damaged; using"):
        assert "from step 2 to 6" in train(tmp_path, *OFTEN).out


def test_a_run_whose_folder_is_removed_ends_with_an_error(tmp_path, monkeypatch):
    save, steps = AtomicCheckpointIO.save_checkpoint, []

    def save_and_remove(self, checkpoint, path, storage_options=None):
        save(self, checkpoint, path)
        steps.append(checkpoint["global_step"])
        if len(steps) == 2:
            removed.append(path.parent.parent)

    removed = []
    make_last = Checkpoint._make_last

    def make_last_and_remove(self):
        make_last(self)
        for place in removed:
            shutil.rmtree(place, ignore_errors=True)

    monkeypatch.setattr(module.Checkpoint, "_make_last", make_last_and_remove)
    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save_and_remove)
    options = (*OFTEN, "trainer.log_every_n_steps=100", "callbacks.progress.every_n_steps=100")
    run = train(tmp_path, *options, status=1)
    assert f"{run.directory} was removed or moved while it was being trained" in run.err
    assert "Traceback" not in run.err
    assert len(steps) == 2
    assert not list(run.directory.glob("**/*.ckpt"))
