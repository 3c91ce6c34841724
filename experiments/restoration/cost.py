"""What a restored sample costs, beside one that is sampled freely by the same sampler.

Usage: ``python -m experiments.restoration.cost RUN``, RUN being a model of digits without labels. The methods take
turns on one thread; of each the seconds of CPU in a round are divided by those of its sampler in the same round.
"""

import contextlib
import functools
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from experiments.restoration.digits import ARMS, TASKS, Judge, counted, made
from experiments.speed.clock import Clock, Turn, ratio, take_turns

import langevin

NUMBER, STEPS, ROUNDS = 50, 10, 5


def main(path: Path) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    run, judge = langevin.load(path), Judge(NUMBER)
    task = TASKS["average"]
    make = functools.partial(made, run, NUMBER)
    acts: dict[str, Callable[[], object]] = {
        name: functools.partial(make, name, STEPS, ()) for name in {arm.sampler for arm in ARMS.values()}
    }
    rows = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):  # no progress bars
        place = Path(folder) / "originals.npz"
        np.savez(place, arr_0=judge.images)
        for name, arm in ARMS.items():
            overrides = (*arm.overrides, *task.overrides, f"measurement.originals={place}", "measurement.noise=0")
            acts[name] = functools.partial(make, arm.sampler, STEPS, overrides)
            with counted(run.model.network) as counts:
                acts[name]()
            rows[name] = counts
        times = take_turns({name: Turn(act) for name, act in acts.items()}, 1, ROUNDS, Clock("cpu"))
    print("| method, sampler | evaluations | gradients | ms a sample | times plain sampling |")
    print("| --- | --- | --- | --- | --- |")
    for name, (evaluations, gradients) in rows.items():
        times_plain = ratio(times.cpu[name], times.cpu[ARMS[name].sampler])
        spread = f"{times_plain['median']:.1f} ({times_plain['min']:.1f}-{times_plain['max']:.1f})"
        milliseconds = 1000 * float(np.median(times.cpu[name])) / NUMBER
        print(f"| {name} | {evaluations} | {gradients} | {milliseconds:.1f} | {spread} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
