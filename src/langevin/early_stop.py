"""The note that a run leaves when it stops before its last step, because it has stopped improving."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langevin.config.types import TARGET
from langevin.files import require_regular, write_json

FILE = "stopped_early.json"


def write_stop(run_dir: Path, step: int, why: str, settings: Mapping[str, Any]) -> None:
    """Note that a run has stopped at a step.

    Args:
        run_dir: the run's folder.
        step: the optimizer step it stands at.
        why: in words.
        settings: the parameters of the callback that has stopped it.
    """
    write_json(run_dir / FILE, {"step": step, "why": why, "settings": dict(settings)})


def stop_at(run_dir: Path, step: int) -> dict[str, Any] | None:
    """The note of a run that stands at a step, if it has stopped there; None where it has not, or nothing is noted."""
    found = _read(run_dir)
    return found if found is not None and found["step"] == step else None


def last_step(run_dir: Path, trainer: Mapping[str, Any], callbacks: Mapping[str, Any] | None) -> int:
    """The step at which a run is done: where it has stopped early by these very callbacks, else `trainer.max_steps`.

    With another `patience`, or without early stopping, a run that has stopped is not done, and is resumed.
    """
    found, steps = _read(run_dir), int(trainer["max_steps"])
    nodes = [{key: value for key, value in node.items() if key != TARGET} for node in (callbacks or {}).values()]
    return min(found["step"], steps) if found is not None and found["settings"] in nodes else steps


def _read(run_dir: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(require_regular(run_dir / FILE).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    is_whole = isinstance(found, dict) and type(found.get("step")) is int and isinstance(found.get("settings"), dict)
    return found if is_whole else None
