"""The beginning of a checkpoint's pickle, beside what zipfile finds."""

import struct
import zipfile

import pytest
import torch

from langevin.pickled import BEGINNING, beginning_of_pickle


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"global_step": 7, "state": {f"w{i}": torch.full((3,), i) for i in range(40)}}, path)
    return path


def pickled(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def test_what_zipfile_finds(checkpoint):
    assert beginning_of_pickle(checkpoint) == pickled(checkpoint)[:BEGINNING]
    # Offsets that 32 bits cannot hold stand in records that torch.save always writes.
    content = bytearray(checkpoint.read_bytes())
    struct.pack_into("<L", content, len(content) - 6, 0xFFFFFFFF)
    checkpoint.write_bytes(content)
    assert beginning_of_pickle(checkpoint) == pickled(checkpoint)[:BEGINNING]
    torch.save({"global_step": 7, "note": "x" * 2 * BEGINNING}, checkpoint)
    assert beginning_of_pickle(checkpoint) == pickled(checkpoint)[:BEGINNING]


def test_what_is_no_whole_checkpoint(checkpoint):
    content = checkpoint.read_bytes()
    for damaged in (content[:-1], content[:-100], content[: len(content) // 2], b"", content[:10], content + b"PK"):
        checkpoint.write_bytes(damaged)
        with pytest.raises((ValueError, OSError, struct.error)):
            beginning_of_pickle(checkpoint)
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        with zipfile.ZipFile(checkpoint, "w", kind) as archive:
            archive.writestr("a/data.pkl" if kind == zipfile.ZIP_DEFLATED else "a/other", b"pickled")
        with pytest.raises(ValueError, match="no whole file of"):
            beginning_of_pickle(checkpoint)
