"""What do `langevin runs` and `langevin report` cost, and how does it grow with the number of runs?

Usage: ``python -m experiments.scale.runs FOLDER NUMBER [NUMBER ...]``: FOLDER holds at least as many runs, see `copies`
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def seconds(*arguments: str) -> float:
    """CPU seconds of a command, its start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a line of CSV for each number of runs."""
    runs = sorted(Path(sys.argv[1]).iterdir())
    print("runs,langevin runs,langevin report,bytes of the report")
    for number in map(int, sys.argv[2:]):
        with tempfile.TemporaryDirectory(dir=Path(sys.argv[1]).parent) as scratch:
            folder, page = Path(scratch, "runs"), Path(scratch, "report.html")
            for run in runs[:number]:
                shutil.copytree(run, folder / run.name, copy_function=os.link)
            listing = seconds("langevin.runs", str(folder))
            report = seconds("langevin.report", str(folder), "--out", str(page))
            print(f"{number},{listing:.2f},{report:.2f},{page.stat().st_size}", flush=True)


if __name__ == "__main__":
    main()
