"""A run that is killed again and again, wherever it happens to be."""

import contextlib
import os
import random
import sys

import pytest
import torch
from helpers.processes import context
from training_helpers import BUSY, differing, train, trained

pytestmark = pytest.mark.e2e

OPTIONS = (
    *BUSY,
    "trainer.max_steps=30",
    "callbacks.checkpoint.every_minutes=1e-9",  # at each step: many kills fall into saving
    "callbacks.checkpoint.keep_every_n_steps=7",
    "evaluation.every_n_steps=5",
    "evaluation.num_samples=40",
    "evaluation.batch_size=4",
    "callbacks.samples.every_n_steps=10",
    "callbacks.trajectory.every_n_steps=10",
    "trainer.val_check_interval=10",
)
KILLS = 30
SECONDS = 4
"""Until each of them, at most: a part of what a whole run takes."""


def attempt(folder, cache, name):
    """Say the command; in a process that may end at any moment."""
    os.environ["LANGEVIN_CACHE"] = str(cache)
    torch.set_num_threads(1)  # as in this process
    with (folder / "log").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        sys.exit(train(folder, *OPTIONS, name=name).status)


@pytest.mark.slow
def test_thirty_kills_at_random_moments_lose_nothing(tmp_path, capsys):
    whole = train(tmp_path, *OPTIONS, name="whole")
    chance, kills, runs, steps = random.Random(0), 0, 0, []
    while kills < KILLS:
        name, done = f"run{runs}", False
        cache = tmp_path / f"cache{runs}"  # which is built anew, and killed too
        while not done:
            process = context.Process(target=attempt, args=(tmp_path, cache, name))
            process.start()
            process.join(chance.uniform(0, SECONDS) if kills < KILLS else None)
            if process.exitcode is None:
                process.kill()
                process.join()
                kills += 1
                rows = tmp_path / name / "metrics.csv"
                steps.append(rows.read_text().count("\n") if rows.exists() else 0)
            else:
                assert process.exitcode == 0, (tmp_path / "log").read_text()[-3000:]
                done = True
        again = train(tmp_path, *OPTIONS, name=name)
        assert "is done: it stands at step 30" in again.out
        assert differing(trained(again), trained(whole)) == []
        assert again.rows == whole.rows
        left = {path.relative_to(again.directory) for path in again.directory.rglob("*")}
        assert left == {path.relative_to(whole.directory) for path in whole.directory.rglob("*")}
        runs += 1
    with capsys.disabled():
        print(f"\n{kills} kills in {runs} runs, after {sorted(steps)} lines of metrics.csv; every end was the same")
