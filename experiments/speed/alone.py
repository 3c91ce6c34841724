"""One contender in a process of its own: for its memory, and for how soon its first step is done.

Usage: ``python -m experiments.speed.alone training|sampling CONTENDER FILE_OF_WORK STEPS``; prints the peak of its
memory in bytes.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from resource import RUSAGE_SELF, getrusage
from typing import Any

import torch
from experiments.speed.work import Work

TRAINING = {
    "network alone": "experiments.speed.ours:network_alone",
    "diffusers": "experiments.speed.diffusers_loop:DiffusersStep",
    "guided-diffusion": "experiments.speed.peers:guided_diffusion",
    "improved-diffusion": "experiments.speed.peers:improved_diffusion",
    "EDM SongUNet": "experiments.speed.peers:song_unet",
    "lucidrains": "experiments.speed.peers:lucidrains",
}
"""What makes a step of each, given the work; that of `langevin` is a fit's."""
SAMPLING = {
    "langevin": "experiments.speed.ours:Sampling",
    "network alone": "experiments.speed.ours:SamplingAlone",
    "diffusers": "experiments.speed.diffusers_loop:DiffusersSampling",
}
"""What makes a batch of each, given the work."""


def made(places: dict[str, str], work: Work) -> tuple[dict[str, Any], dict[str, str]]:
    """All contenders whose code is here, and why the others are left out."""
    found, skipped = {}, {}
    for name, place in places.items():
        try:
            found[name] = resolve_name(place)(work)
        except ModuleNotFoundError as error:
            skipped[name] = str(error)
    return found, skipped


def peak_memory(device: str) -> int:
    """The most bytes that this process has held: of the GPU's memory what torch has given out, else resident."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held when it started this process
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return getrusage(RUSAGE_SELF).ru_maxrss


def main(part: str, name: str, file: str, steps: int) -> None:
    """Take so many steps and print the peak."""
    work = Work.read(Path(file))
    if work.threads is not None:
        torch.set_num_threads(work.threads)
    if (part, name) == ("training", "langevin"):
        with tempfile.TemporaryDirectory() as folder:
            resolve_name("experiments.speed.ours:fit_step")(work, Path(folder), steps)
    else:
        step: Callable[[], object] = resolve_name({"training": TRAINING, "sampling": SAMPLING}[part][name])(work)
        for _ in range(steps):
            step()
    print(peak_memory(work.device))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
