"""The output of an evaluation: a file with its values and their protocol, and a printed table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import langevin
from langevin.files import write_json
from langevin.images import write_png
from langevin.measured import FILE
from langevin.metrics.evaluation import Evaluation


def report(
    out: Path,
    evaluation: Evaluation,
    values: Mapping[str, Mapping[str, float]],
    protocol: Mapping[str, Any],
    **about: Any,
) -> None:
    """Write ``metrics.json`` and what images the metrics have into a folder, and print the values.

    Args:
        out: the folder.
        evaluation: what has just computed the values.
        values: each metric's, by their names.
        protocol: how they were computed, see `langevin.protocol`.
        **about: what was measured, and against what: plain values.
    """
    flat = {name: value for found in values.values() for name, value in found.items()}
    content = {"metrics": flat, **about, "protocol": protocol, "version": langevin.__version__}
    if details := evaluation.details():
        content["details"] = details
    for name, figure in evaluation.figures().items():
        write_png(out / f"{name}.png", figure, evaluation.scale)
    write_json(out / FILE, content)
    width = max(map(len, flat))
    print("\n".join(f"{name:{width}}  {value:.6g}" for name, value in flat.items()))
