"""Checkpoints as files: whole or absent, and safe to open."""

import multiprocessing
import os
import pickle
import resource
import signal
import zipfile

import pytest
import torch
from training_helpers import QUIET, differing, train, trained

from langevin.checkpoint import RECORD, find_checkpoint, read_checkpoint
from langevin.errors import UserError
from langevin.training import checkpoint as module
from langevin.training.checkpoint import AtomicCheckpointIO


def checkpoint(value, numbers=1000):
    return {RECORD: {"version": "0"}, "state_dict": {"weight": torch.full((numbers,), float(value))}, "global_step": 3}


def save(path, value, numbers=1000):
    AtomicCheckpointIO().save_checkpoint(checkpoint(value, numbers), path)


def value_in(path):
    (value,) = read_checkpoint(path)["state_dict"]["weight"].unique().tolist()
    return value


@pytest.fixture
def full_disk():
    """Lets no file grow beyond some size, as a full disk would; no limit afterwards."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_is_read_back(tmp_path):
    path = tmp_path / "new" / "last.ckpt"
    save(str(path), 1)
    save(path, 2)
    assert value_in(path) == 2
    assert AtomicCheckpointIO().load_checkpoint(str(path))["global_step"] == 3
    assert os.listdir(path.parent) == ["last.ckpt"]


def test_a_file_is_looked_through_once_a_version(tmp_path, monkeypatch):
    """A run's checkpoint is looked for, and then read; a large one takes seconds to check."""
    looked, look_through = [], zipfile.ZipFile.testzip
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda self: looked.append(self.filename) or look_through(self))
    for value in (1, 2):
        save(tmp_path / "checkpoints" / "last.ckpt", value)
        assert value_in(find_checkpoint(tmp_path)) == value
        assert len(looked) == value


def test_tensors_are_read_onto_the_cpu_and_may_be_changed(tmp_path):
    path = tmp_path / "last.ckpt"
    save(path, 1)
    weight = read_checkpoint(path)["state_dict"]["weight"]
    assert weight.device.type == "cpu"
    weight.add_(1)
    save(path, 5)  # over a file that is mapped into memory
    assert weight.unique().tolist() == [2]
    assert value_in(path) == 5


@pytest.mark.parametrize("room", [0, 4096, 200_000])
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, full_disk, room):
    """In three places: at the first byte, in the first and in the second of the tensors."""
    path = tmp_path / "last.ckpt"
    save(path, 1, numbers=100)
    before = path.read_bytes()
    larger = checkpoint(2, numbers=25_000)
    larger["state_dict"]["more"] = torch.zeros(100_000)
    full_disk(room)
    with pytest.raises(UserError, match=rf"could not save {path}.*make room on the disk and rerun the same command"):
        AtomicCheckpointIO().save_checkpoint(larger, path)
    full_disk(resource.RLIM_INFINITY)
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert path.read_bytes() == before
    assert value_in(path) == 1
    AtomicCheckpointIO().save_checkpoint(larger, path)
    assert value_in(path) == 2


def test_a_folder_that_cannot_be_made_is_a_plain_message(tmp_path):
    (tmp_path / "checkpoints").write_text("a file in the way")
    with pytest.raises(UserError, match=r"could not save .*last.ckpt"):
        save(tmp_path / "checkpoints" / "last.ckpt", 1)


def test_a_full_disk_in_a_run(tmp_path, full_disk):
    """The message and status 1; with room again, the same command resumes to the same end."""
    options = (*QUIET, "callbacks.checkpoint.keep_every_n_steps=1")
    train(tmp_path, *options, "trainer.max_steps=2")
    full_disk(100_000)
    failed = train(tmp_path, *options, status=1)
    full_disk(resource.RLIM_INFINITY)
    assert failed.err.splitlines()[-1].startswith(f"error: could not save {failed.last.parent}")
    assert "make room on the disk and rerun the same command" in failed.err
    assert "Traceback" not in failed.err
    assert read_checkpoint(failed.last)["global_step"] == 2
    assert not list(failed.directory.glob("**/.*.ckpt*"))
    resumed = train(tmp_path, *options)
    assert "from step 2 to 6" in resumed.out
    assert differing(trained(resumed), trained(train(tmp_path, *options, name="whole"))) == []


def save_and_die(path, moment):
    save(path, 1)
    if moment == "writing":
        write = module.write_atomically

        def write_half(path, content):
            def half(file):
                content(file)
                file.truncate(file.tell() // 2)
                os.kill(os.getpid(), signal.SIGKILL)

            write(path, half)

        module.write_atomically = write_half
    else:
        os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
    save(path, 2)


@pytest.mark.parametrize("moment", ["writing", "replacing"])
def test_a_kill_while_saving_leaves_the_earlier_checkpoint(tmp_path, moment):
    path = tmp_path / "checkpoints" / "last.ckpt"
    child = multiprocessing.get_context("fork").Process(target=save_and_die, args=(path, moment))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert len(os.listdir(path.parent)) == 2  # what was being written is left behind
    assert find_checkpoint(tmp_path) == path
    assert value_in(path) == 1


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_the_bomb_is_one(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "executed")))
    assert (tmp_path / "executed").is_dir()


def damaged_files(tmp_path):
    good = tmp_path / "good.ckpt"
    save(good, 1, numbers=10_000)
    content = good.read_bytes()
    flipped = bytearray(content)
    start = content.index(b"data.pkl") + 100
    flipped[start : start + 20] = bytes(byte ^ 0xFF for byte in flipped[start : start + 20])
    bomb = Bomb(tmp_path / "executed")
    files = {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "one byte short": content[:-1],
        "damaged": bytes(flipped),
        "text": b"langevin: a text\n" * 100,
        "bare pickle": pickle.dumps({RECORD: {}, "state_dict": {}}),
        "pickle bomb": pickle.dumps({RECORD: bomb}),
    }
    for name, held in files.items():
        (tmp_path / f"{name}.ckpt").write_bytes(held)
    torch.save({RECORD: bomb, "state_dict": {}}, tmp_path / "torch bomb.ckpt")
    torch.save({RECORD: bomb}, tmp_path / "old torch bomb.ckpt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(tmp_path / "a zip.ckpt", "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")
    return [*files, "torch bomb", "old torch bomb", "a zip"]


@pytest.mark.parametrize("index", range(10))
def test_a_damaged_or_evil_file_is_refused(tmp_path, index):
    name = damaged_files(tmp_path)[index]
    path = tmp_path / f"{name}.ckpt"
    with pytest.raises(
        UserError, match=rf"checkpoint {path} cannot be read: it is damaged or no checkpoint at all \(.+\)$"
    ):
        read_checkpoint(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x02", b"\x80\x02.", b"\x80\x02h\x05.", b"\x80\x02}J\x01.", b"\x80\x02}(K\x01u.", b"\x80\x02K\x01Q."],
)
def test_a_damaged_pickle_in_a_whole_file_is_refused(tmp_path, content):
    """Torch's unpickler raises whatever comes: IndexError, KeyError, struct.error, AssertionError, ..."""
    save(tmp_path / "good.ckpt", 1)
    with zipfile.ZipFile(tmp_path / "good.ckpt") as good, zipfile.ZipFile(tmp_path / "bad.ckpt", "w") as bad:
        for file in good.infolist():
            bad.writestr(file, content if file.filename.endswith("data.pkl") else good.read(file))
    with pytest.raises(UserError, match=r"bad.ckpt cannot be read: it is damaged or no checkpoint at all \(.+\)$"):
        read_checkpoint(tmp_path / "bad.ckpt")


@pytest.mark.parametrize("foreign", [{"state_dict": {}}, torch.zeros(3), [1, 2], 5])
def test_a_foreign_checkpoint_is_refused(tmp_path, foreign):
    torch.save(foreign, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match=r"foreign.ckpt was not written by Langevin: it holds no 'langevin' record"):
        read_checkpoint(tmp_path / "foreign.ckpt")


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"nothing.ckpt does not exist; give a run's folder or a .ckpt file"):
        read_checkpoint(tmp_path / "nothing.ckpt")
    with pytest.raises(UserError, match=f"checkpoint {tmp_path} does not exist"):
        read_checkpoint(tmp_path)


def test_the_checkpoint_of_a_folder_or_file(tmp_path):
    with pytest.raises(UserError, match=r"checkpoint=.*/nowhere does not exist"):
        find_checkpoint(tmp_path / "nowhere")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".last.ckpt.0123abcd").touch()
    with pytest.raises(UserError, match=r"folder without checkpoints/last.ckpt: no run has saved there yet"):
        find_checkpoint(tmp_path)
    for name in ("last.ckpt", "best.ckpt"):
        save(tmp_path / "checkpoints" / name, 1)
    assert find_checkpoint(tmp_path).name == "last.ckpt"
    assert find_checkpoint(tmp_path / "checkpoints" / "best.ckpt").name == "best.ckpt"


def test_a_damaged_last_checkpoint_stops_the_run_before_it_starts(tmp_path):
    run = train(tmp_path, *QUIET, "trainer.max_steps=1")
    run.last.write_bytes(run.last.read_bytes()[:-5000])
    again = train(tmp_path, *QUIET, status=1)
    assert again.err.startswith(f"error: checkpoint {run.last} is damaged (")
