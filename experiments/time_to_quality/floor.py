"""The values of real images: what samples that are as good as held-out images would have.

Usage: ``python -m experiments.time_to_quality.floor CLASSIFIER --samples N --task OPTIONS``; writes floor.json, which
results.png shows.
"""

import argparse
import json
from collections.abc import Sequence

from experiments.time_to_quality.asked import ask

from langevin.cli import calm_threads


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure held-out images, drawn at random, against the training images.

    Raises:
        UserError: when there are fewer.
    """
    asked = argparse.ArgumentParser("python -m experiments.time_to_quality.floor")
    ask(asked)
    asked.add_argument("--draws", type=int, default=3, help="(default: 3)")
    options = asked.parse_args(arguments)
    calm_threads()  # before torch is imported

    import numpy as np
    import torch
    from experiments.time_to_quality import measuring, ours, training

    from langevin.errors import UserError
    from langevin.samplers.pipeline import SampleBatch

    torch.set_num_threads(1)
    held_out = training.data_of(ours.config(options.task)).test_set
    there = 0 if held_out is None else len(held_out)
    if held_out is None or there < options.samples:
        raise UserError(f"--samples {options.samples}: there are {there} held-out images; allowed: at most as many")
    evaluation = measuring.evaluation_of(options.classifier, options.samples, options.task)
    rows = []
    for seed in range(options.draws):
        chosen = np.random.default_rng(seed).permutation(there)[: options.samples]
        images = torch.tensor(held_out.samples[np.sort(chosen)]).movedim(-1, 1)
        rows.append(measuring.values_of(evaluation, [SampleBatch(torch.arange(options.samples), images, {})]))
        print(rows[-1])
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "floor.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
