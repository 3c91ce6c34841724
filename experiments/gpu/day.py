"""A day on a GPU: where its results go, how long it may take, and the commands that it runs."""

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from langevin.files import write_json

ROOT = Path(__file__).parents[2]
RESULTS = "results.json"
LOG = "log.txt"
PATIENCE = 10
"""Seconds that a process is given to save, once its time is over."""
PACKAGES = ("torch", "torchvision", "lightning", "triton", "numpy", "diffusers", "torchmetrics")


@dataclass
class Day:
    """What all parts share.

    Attributes:
        out: folder of the results; few files, so that they are easily carried home.
        work: folder of runs, caches and what is compiled; it may be deleted afterwards.
        device: "cuda", or "cpu" for a rehearsal at toy size.
        seconds: how long the day may take.
        cifar10: the training images of CIFAR-10, a folder or zip, or the official archive; None downloads them.
        results: what stands so far, by part.
        began: when it began, by `time.monotonic`.
    """

    out: Path
    work: Path
    device: str
    seconds: float
    cifar10: Path | None = None
    results: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def rehearsal(self) -> bool:
        """Whether everything is at toy size, on a CPU."""
        return self.device == "cpu"

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (time.monotonic() - self.began)

    def open(self) -> None:
        """Take up what an earlier call left in `out`, and note the machine."""
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / RESULTS
        if path.is_file():
            self.results = json.loads(path.read_text())
        self.results["about"] = about(self.device)
        self.write()

    def write(self) -> None:
        """Write what stands, whole or not at all."""
        write_json(self.out / RESULTS, self.results)

    def say(self, text: str) -> None:
        """Print a line, with the time."""
        self._tell(f"[{time.monotonic() - self.began:5.0f} s] {text}\n")

    def run(
        self, command: Sequence[str | Path], limit: float, environment: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Run a command in the repository's root; its output is printed and kept in the log.

        Args:
            command: the arguments after `python`.
            limit: seconds after which it is stopped; never more than the day has left.
            environment: variables to add.

        Returns:
            "command" (WORK is the folder of that name), "seconds" and "status": its exit status; None where it was
            stopped at the limit, or not begun.
        """
        arguments = [str(argument) for argument in command]
        limit = min(limit, self.left)
        # Without this machine's places, so that it can be shown to others.
        shown = " ".join(["python", *arguments]).replace(f"{ROOT}/", "").replace(str(self.work), "WORK")
        record: dict[str, Any] = {"command": shown, "seconds": 0.0, "status": None}
        if limit < 1:
            self.say(f"no time left for: {record['command']}")
            return record
        self.say(f"{record['command']}  (at most {limit:.0f} s)")
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | self._environment() | dict(environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        reader = threading.Thread(target=self._follow, args=(process,), daemon=True)
        reader.start()
        try:
            record["status"] = process.wait(limit)
        except subprocess.TimeoutExpired:
            stop(process)
            self.say("stopped: its time is over")
        reader.join(5)
        record["seconds"] = round(time.monotonic() - began, 1)
        return record

    def _environment(self) -> dict[str, str]:
        places = [ROOT / "src", ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        return {
            "PYTHONPATH": os.pathsep.join(str(place) for place in places),
            "PYTHONUNBUFFERED": "1",
            "LANGEVIN_CACHE": str(self.work / "cache"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.work / "compiled"),
        }

    def _follow(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._tell(line)

    def _tell(self, text: str) -> None:
        print(text, end="", flush=True)
        with (self.out / LOG).open("a") as file:
            file.write(text)


def stop(process: "subprocess.Popen[str]") -> None:
    """Have a process save and end, as training does at SIGTERM; kill it if it does not."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def about(device: str) -> dict[str, Any]:
    """The machine and the versions."""
    import torch

    from langevin.commands.train import code_version

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "none"
    found: dict[str, Any] = {
        "device": device,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": versions,
        "code": code_version(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["device"] = properties.name
        found["memory_gb"] = round(properties.total_memory / 1e9, 1)
        found["versions"] |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return found
