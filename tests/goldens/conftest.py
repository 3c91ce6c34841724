"""The recorded runs, unpacked once."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from goldens.record import unpack


class Golden(NamedTuple):
    """A recorded run and what the commit that made it computed from it."""

    run: Path
    values: Path


@pytest.fixture(scope="session")
def golden_folder(tmp_path_factory):
    """All recorded runs, in `runs`, and their values, in `values`; a test copies what it changes."""
    return unpack(tmp_path_factory.mktemp("goldens"))


@pytest.fixture
def golden(golden_folder, tmp_path):
    """A copy of a recorded run, by its name."""

    def copy(name):
        run = shutil.copytree(golden_folder / "runs" / name, tmp_path / "runs" / name)
        return Golden(run, golden_folder / "values" / name)

    return copy
