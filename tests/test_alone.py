"""Several jobs in one process, see `langevin.cli.isolated_job`."""

import os
import sys
from contextlib import suppress

import torch.distributed

from langevin.cli import isolated_job


def test_a_job_leaves_nothing_to_the_next(monkeypatch, tmp_path):
    """Be it that it fails."""
    main = sys.modules["__main__"]
    monkeypatch.setattr(sys, "argv", ["study.py", "folder"])
    monkeypatch.setenv("KEPT", "as it was")
    before = sys.argv, main.__spec__, dict(os.environ)
    for fault in (None, ZeroDivisionError):
        with suppress(ZeroDivisionError), isolated_job(["seed=1"], "langevin.commands.train"):
            assert sys.argv == ["study.py", "seed=1"]
            assert main.__spec__.name == "langevin.commands.train"
            os.environ |= {"LOCAL_RANK": "0", "KEPT": "no more"}
            store = torch.distributed.FileStore(str(tmp_path / f"store of {fault}"), 1)
            torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
            if fault is not None:
                raise fault
        assert (sys.argv, main.__spec__, dict(os.environ)) == before
        assert not torch.distributed.is_initialized()
