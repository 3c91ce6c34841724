"""Many finished runs, made of a few real ones: what `langevin runs` and `langevin report` are measured on.

Usage: ``python -m experiments.scale.copies SOURCE FOLDER NUMBER``: SOURCE holds the real runs, FOLDER gets the copies
"""

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

EXACT = ("step", "eval/protocol", "train/learning_rate")
"""The columns that a run with another seed has in common with the first."""


def copy_of(source: Path, target: Path, seed: int) -> None:
    """A run that differs from `source` in its seed and learning rate, and so in every number and image.

    Its checkpoints are hard links: nobody here reads more of them than the step.
    """
    rng = np.random.default_rng(seed)
    shutil.copytree(source, target, copy_function=os.link)
    config = yaml.safe_load((source / "config.yaml").read_text())
    config |= {"name": target.name, "seed": seed}
    config["optimizer"]["lr"] *= float(rng.choice([0.25, 0.5, 1, 2, 4]))
    rewrite(target / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())
    rewrite(target / "metrics.csv", perturbed_rows((source / "metrics.csv").read_text(), rng).encode())
    for path in target.glob("evaluations/*/metrics.json"):
        content = json.loads(path.read_text())
        content["metrics"] = {name: value * rng.uniform(0.8, 1.2) for name, value in content["metrics"].items()}
        rewrite(path, json.dumps(content, indent=2).encode())
    for path in target.glob("samples/*.png"):
        pixels = np.asarray(Image.open(path))
        file = io.BytesIO()
        # Shifted by whole pixels of the enlarged image, as if other samples had been drawn.
        Image.fromarray(np.roll(pixels, 4 * rng.integers(1, 120, 2), axis=(0, 1))).save(file, "PNG")
        rewrite(path, file.getvalue())


def perturbed_rows(text: str, rng: np.random.Generator) -> str:
    """A metrics.csv with every number changed by up to a fifth, but for `EXACT`."""
    header, *rows = csv.reader(io.StringIO(text))
    kept = [name in EXACT for name in header]
    factors = rng.uniform(0.8, 1.2, (len(rows), len(header)))
    lines = [
        [
            cell if exact or not cell else repr(float(cell) * factor)
            for cell, exact, factor in zip(row, kept, line, strict=True)
        ]
        for row, line in zip(rows, factors.tolist(), strict=True)
    ]
    return "\n".join(map(",".join, [header, *lines])) + "\n"


def rewrite(path: Path, content: bytes) -> None:
    """Replace a hard link by a file of its own."""
    path.unlink()
    path.write_bytes(content)


def main() -> None:
    """Make the copies."""
    source, folder, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    runs = sorted(path.parent for path in source.glob("*/config.yaml"))
    folder.mkdir(parents=True)
    for at in range(number):
        run = runs[at % len(runs)]
        copy_of(run, folder / f"{run.name[:-8]}{at:08x}", at)


if __name__ == "__main__":
    main()
