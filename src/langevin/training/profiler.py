"""Profiles of training, written into the run's folder."""

from pathlib import Path
from typing import Literal

from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

FOLDER = "profile"
PROFILERS: dict[str, type[SimpleProfiler | AdvancedProfiler | PyTorchProfiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def make_profiler(name: Literal["simple", "advanced", "pytorch"] | None, run_dir: Path) -> Profiler | None:
    """One of Lightning's profilers, whose report goes to files.

    Given its name alone, Lightning would log the report as one of its own messages, which are not shown.

    Args:
        name: "simple" for the time in each of Lightning's hooks, "advanced" for Python's functions in each, "pytorch"
            for torch's operators in a few steps, with a trace; None for none.
        run_dir: the run's folder; the report is `profile/fit-profile.txt` there (`fit-profile-RANK.txt`).
    """
    return None if name is None else PROFILERS[name](dirpath=str(run_dir / FOLDER), filename="profile")
