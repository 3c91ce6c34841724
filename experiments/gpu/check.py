"""Is it right? The tests of tests/gpu, each with the figures that it measured."""

import json
from pathlib import Path
from typing import Any

from experiments.gpu.day import Day


def run(day: Day, limit: float) -> None:
    """Run the tests for at most so many seconds; what is done by then is kept."""
    lines = day.work / "check.jsonl"
    lines.parent.mkdir(parents=True, exist_ok=True)
    lines.unlink(missing_ok=True)
    environment = {"LANGEVIN_GPU_RESULTS": str(lines), "LANGEVIN_GPU_REHEARSAL": str(int(day.rehearsal))}
    command = ["-m", "pytest", "tests/gpu", "-m", "gpu", "-p", "no:cacheprovider", "--tb=short"]
    record = day.run(command, limit, environment)
    day.results["check"] = {**record, "tests": read(lines)}
    day.write()


def read(lines: Path) -> list[dict[str, Any]]:
    """The tests that are done, a line each; the last one may have been cut short."""
    found = []
    for line in lines.read_text().splitlines() if lines.is_file() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found
