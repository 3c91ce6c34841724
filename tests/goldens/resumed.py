"""Loss curves of the recorded runs as they are resumed today.

A run resumes with the weights, the optimizer's moments and the images that it would have had, but with random numbers
of another version than those it was recorded with. So what it was resumed to then (`resumed.csv`) is not the measure,
but what it was resumed to at the commit that changed the numbers. It is recorded by

    PYTHONPATH=tests python -m goldens.resumed
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from goldens.curves import ROOT, Curve, read_curve, train
from goldens.record import IMPORTED, RESUMED, options_of, unpack

CURVES = Path(__file__).parent / "resumed.json"


def resume(run: Path) -> tuple[str, Curve]:
    """Resume a copy of a recorded run.

    Returns:
        what it printed, and the curve of the steps that it made.
    """
    before = read_curve(run / "metrics.csv")
    output = train(*options_of(run.name), RESUMED, f"output_dir={run.parent}", f"name={run.name}")
    after = read_curve(run / "metrics.csv")
    new = {
        column: {step: values[step] for step in values if step not in before[column]}
        for column, values in after.items()
    }
    return output, new


def main() -> None:
    """Record them all."""
    sys.path.insert(0, str(ROOT / "src"))
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        runs = sorted((unpack(Path(folder)) / "runs").iterdir())
        curves = {run.name: resume(run)[1] for run in runs if run.name != IMPORTED}
    CURVES.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    main()
