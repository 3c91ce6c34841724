"""The sessions of a run: which command, on what machine, with which version of the code, for how long."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langevin.files import require_regular, write_json

FILE = "sessions.json"


def sessions_of(run_dir: Path) -> list[dict[str, Any]]:
    """The sessions of a run, the first first; none where the file is missing or damaged.

    Returns:
        for each "command", "hardware", "code", "started" (ISO 8601), "from_step"; and "to_step" and "seconds" unless it
        was killed. Of an evaluation nothing of hardware and steps.
    """
    try:
        found = json.loads(require_regular(run_dir / FILE).read_text())
    except (OSError, ValueError, RecursionError):
        return []
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


@contextmanager
def session(run_dir: Path, step: Callable[[], int] | None = None, **session_info: str) -> Iterator[None]:
    """Record a session when it begins; when it ends, for any reason, record its duration and its last step.

    Args:
        run_dir: the run's folder, or an evaluation's.
        step: returns the run's current step; None for an evaluation.
        **session_info: "command", "hardware", "code".
    """
    before, began = sessions_of(run_dir), time.monotonic()
    now: dict[str, Any] = {**session_info, "started": datetime.now(UTC).isoformat(timespec="seconds")}
    if step is not None:
        now["from_step"] = step()
    write_json(run_dir / FILE, [*before, now])
    try:
        yield
    finally:
        if step is not None:
            now["to_step"] = step()
        now["seconds"] = round(time.monotonic() - began, 1)
        if run_dir.is_dir():  # else it was removed, and is not made again for this
            write_json(run_dir / FILE, [*before, now])
