"""Scripts in processes of their own. They are forked from a server that has imported what takes seconds."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import textwrap
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from helpers.commands import ROOT

PRELOAD = (
    "pytest",
    "langevin.assembly.run",
    "langevin.commands.train",
    "langevin.commands.sample",
    "langevin.commands.evaluate",
    "langevin.study",
)
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(list(PRELOAD))


def _run(script: Path, arguments: tuple[str, ...], environment: dict[str, str], out: Path, err: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    with out.open("w", buffering=1) as sys.stdout, err.open("a", buffering=1) as sys.stderr:
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stderr.fileno(), 2)
        sys.argv = [str(script), *arguments]
        sys.path.insert(0, str(script.parent))
        runpy.run_path(str(script), run_name="__main__")


class Script:
    """What `python script arguments...` would be, on one thread, with the methods of a `subprocess.Popen`."""

    def __init__(
        self,
        script: Path,
        *arguments: str,
        out: Path,
        err: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        given = (Path(script), arguments, dict(environment or os.environ), out, err or out)
        self.process: ForkServerProcess = context.Process(target=_run, args=given)
        self.process.start()

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        self.process.join(seconds)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("script", seconds or 0)
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None and self.process.pid is not None:
            os.kill(self.process.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def command(name: str, *overrides: str, log: Path) -> Script:
    """A command of the project's, such as "train", of which both outputs go into one file."""
    return Script(ROOT / f"{name}.py", *overrides, out=log)


class Code:
    """A process of its own that runs some code, and what it has printed.

    Args:
        beside: a file; the code may import what lies in its folder.
        folder: for the script and what it prints.
        code: is run.
        name: of the script.
    """

    def __init__(self, beside: str, folder: Path, code: str, name: str = "code") -> None:
        setup = f"import sys; sys.path.insert(0, {os.path.dirname(beside)!r})\n"
        file, self.out, self.err = (folder / f"{name}.{suffix}" for suffix in ("py", "out", "err"))
        file.write_text(setup + textwrap.dedent(code))
        self.process = Script(file, out=self.out, err=self.err)

    def printed(self) -> str:
        assert self.process.wait(300) == 0, self.err.read_text()
        return self.out.read_text()
