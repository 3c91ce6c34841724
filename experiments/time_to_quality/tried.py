"""Changes of our recipe: see the README.

Usage: ``python -m experiments.time_to_quality.tried CLASSIFIER [NAME...]``; results are added to tried.json.
"""

import json
import sys
from pathlib import Path

import torch
from experiments.time_to_quality import measuring, ours

STEPS = 250
CHANGES = {
    "none": (),
    "muon": ("optimizer=muon", "optimizer.lr=2e-3"),
    "muon, fewer steps": ("optimizer=muon", "optimizer.lr=2e-3", "trainer.max_steps=190"),
}
"""Further options of train.py."""


def main(classifier: str, *names: str) -> None:
    """Train and measure the changes of these names, by default all; seed 0."""
    path = Path(__file__).with_name("tried.json")
    rows = json.loads(path.read_text()) if path.exists() else {}
    evaluation = measuring.evaluation_of(Path(classifier))
    for name in names or CHANGES:
        overrides = (f"trainer.max_steps={STEPS}", *CHANGES[name])
        weights, cpu = ours.train(overrides, lambda seconds: None, every=STEPS)
        cfg = measuring.config_of("langevin", overrides)
        denoiser = measuring.denoiser_of("langevin", cfg, weights)
        values = measuring.measured(denoiser, cfg, evaluation, "dpm_solver_2m", 20)
        rows[name] = {"overrides": CHANGES[name], "cpu_seconds": round(cpu, 2), **values}
        path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
