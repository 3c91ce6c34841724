import os
import subprocess
import sys

import pytest

from langevin import filling as module
from langevin.errors import UserError
from langevin.filling import LOCK, filling

pytestmark = pytest.mark.e2e

HOLD = """
import sys
from pathlib import Path
from langevin.filling import filling
with filling(Path(sys.argv[1])):
    print(1, flush=True)
    input()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder `out`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "1\n"
        yield process
        process.kill()


def test_a_second_one_is_refused_and_may_come_after(tmp_path, holder):
    with (
        pytest.raises(UserError, match=r"out=.*/out: another process is filling that folder"),
        filling(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out" / LOCK).exists(), "it is the other's"
    holder.communicate("\n")
    assert not (tmp_path / "out").exists()
    with filling(tmp_path / "out"):
        (tmp_path / "out" / "a").touch()
    assert os.listdir(tmp_path / "out") == ["a"]


def test_who_is_killed_lets_go(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert os.listdir(tmp_path / "out") == [LOCK]
    with filling(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path / "out") == []


def test_a_folder_that_was_there_stays(tmp_path):
    with filling(tmp_path):
        pass
    assert tmp_path.is_dir()


def test_a_lock_whose_file_was_removed_in_between_is_taken_anew(tmp_path, monkeypatch):
    """Else a third process could take the lock of the new file."""
    acquire, left = module.FileLock.acquire, [1]

    def late(self, *arguments, **options):
        if left:
            left.pop()
            found = acquire(self, *arguments, **options)
            os.unlink(tmp_path / LOCK)  # by the process that has just let go
            return found
        return acquire(self, *arguments, **options)

    monkeypatch.setattr(module.FileLock, "acquire", late)
    with filling(tmp_path):
        with pytest.raises(UserError), filling(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()
