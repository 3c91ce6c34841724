"""The fixtures of the tests that need a SLURM."""

import tempfile
from pathlib import Path

import pytest
from slurm_cluster import INSTALL, Cluster, missing


@pytest.fixture(scope="package")
def cluster(_cache):
    """A real SLURM of two nodes on this machine."""
    if absent := missing():
        pytest.skip(f"no {', '.join(absent)} on this machine: {INSTALL}")
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, Cluster(Path(folder)) as running:
        yield running
