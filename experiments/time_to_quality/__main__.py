"""How much CPU time does a model need to be as good: see the README.

Usage: ``python -m experiments.time_to_quality OUT CLASSIFIER [OPTIONS]``; see ``--help``.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from experiments.time_to_quality.asked import ask

from langevin.cli import calm_threads

PEERS = ("diffusers", "lucidrains")
SAMPLERS = ("dpm_solver_2m", "ddim")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, and write results.json, results.md and results.png; what is done already is not done again."""
    asked = argparse.ArgumentParser("python -m experiments.time_to_quality")
    asked.add_argument("out", type=Path, help="folder of the weights of one data set, from which a rerun resumes")
    ask(asked)
    asked.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    asked.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="(default: all)")
    asked.add_argument("--marks", type=float, nargs="+", help="CPU seconds after which a peer's weights are kept")
    asked.add_argument("--lengths", type=int, nargs="+", help="optimizer steps of our runs")
    asked.add_argument("--epochs", type=int, help="that diffusers' schedule of the rate spans")
    asked.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS, help="(default: all)")
    options = asked.parse_args(arguments)
    calm_threads()  # before torch is imported

    import torch
    from experiments.time_to_quality import measuring, report, training

    torch.set_num_threads(1)
    marks, lengths = options.marks or training.MARKS, options.lengths or training.LENGTHS
    epochs = options.epochs or training.EPOCHS
    for seed in options.seeds:
        training.train(options.out, seed, options.peers, marks, lengths, options.task, epochs)
    samplers = {name: measuring.SAMPLERS[name] for name in options.samplers}
    rows = measuring.measure(options.out, options.classifier, samplers, options.samples, options.task)
    report.write(options.results, rows)
    (options.results / "results.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
