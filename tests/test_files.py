import errno
import os
import stat

import pytest

from langevin.files import write_atomically


def test_writes_a_file_and_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_replaces_a_file(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"a long old content")
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        file.flush()
        assert path.read_bytes() == b"old"
        file.write(b" and half")

    write_atomically(path, write)
    assert path.read_bytes() == b"half and half"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "disk full"), ValueError("a bug"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [b"old", None])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, error, old):
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)

    def write(file):
        file.write(b"half of it")
        file.flush()
        raise error

    with pytest.raises(type(error)) as caught:
        write_atomically(path, write)
    assert caught.value is error
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({} if old is None else {"file.bin": old})


def test_failure_of_the_last_move_leaves_no_temporary(tmp_path):
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, lambda file: file.write(b"new"))
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_file_is_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append(os.fstat(fd).st_size), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("replace"), replace(a, b)))
    write_atomically(tmp_path / "file.bin", lambda file: file.write(b"12345"))
    assert steps == [5, "replace"]


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_file_may_be_read_by_whom_the_umask_lets(tmp_path, umask):
    previous = os.umask(umask)
    try:
        write_atomically(tmp_path / "file.bin", lambda file: file.write(b"new"))
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "file.bin").stat().st_mode) == 0o666 & ~umask
