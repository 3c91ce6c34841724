"""What the command refuses before it serves anything."""

import socket
from importlib.util import find_spec

import pytest
from helpers.commands import call

from langevin.ui.__main__ import bound, is_local

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="the package gradio is not installed")


def test_mistakes_are_reported_in_a_line(labelled, tmp_path, monkeypatch):
    def refused(*arguments):
        result = call("ui.__main__", *map(str, arguments))
        assert (result.status, result.out) == (1, ""), result
        (line,) = result.err.splitlines()
        return line

    assert refused(tmp_path / "none").startswith(f"error: path={tmp_path / 'none'} does not exist")
    assert refused("a", "b", "c") == "error: RUN: 3 are given; allowed: one, or two to compare"
    assert refused(labelled, "--port", 70_000).startswith("error: --port 70000: allowed: 0 to 65535")
    assert refused(labelled, "--host", "no.such.invalid").startswith("error: --host no.such.invalid: cannot be served")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refused(labelled, "--port", port).startswith(f"error: --port {port} is in use; choose another")
    monkeypatch.setattr("langevin.ui.__main__.find_spec", lambda name: None)
    wanted = "error: the explorer needs the package gradio: pip install 'langevin-diffusion[ui]'"
    assert refused(labelled) == wanted


def test_a_foreign_run_is_not_built_unless_it_is_trusted(tmp_path):
    import torch

    (tmp_path / "checkpoints").mkdir()
    record = {"version": "0", "config": "model:\n  _target_: os.system\n", "spec": {}}
    torch.save({"langevin": record, "state_dict": {}, "global_step": 0}, tmp_path / "checkpoints" / "last.ckpt")
    result = call("ui.__main__", str(tmp_path))
    assert result.status == 1
    assert "os.system" in result.err
    assert "trust" in result.err


def test_only_a_loopback_address_is_local():
    with bound("127.0.0.1", 0) as opened:
        assert is_local(opened.getsockname()[0])
    with bound("0.0.0.0", 0) as opened:
        assert not is_local(opened.getsockname()[0])
    assert is_local("::1")
    assert not is_local("fe80::1%eth0")
