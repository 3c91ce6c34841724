"""The commands, called in this process: only the first call pays for imports."""

import contextlib
import importlib
import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict

from langevin.cli import force_add_override
from langevin.config.validate import CONF, groups_of
from langevin.interrupt import listening

if TYPE_CHECKING:
    from helpers.processes import Script

ROOT = Path(__file__).parents[2]

# A run of about a second.
TINY = (
    "model.channels=32",
    "model.channel_multipliers=[1]",
    "batch_size=8",
    "trainer.accelerator=cpu",
    "trainer.max_steps=2",
    "trainer.log_every_n_steps=1",
    "callbacks.samples.num_samples=4",
    "sampler.steps=2",
)
# The like of a classifier.
CLASSIFIER = (
    "task=classifier",
    "classifier.channels=32",
    "classifier.channel_multipliers=[1]",
    *(override for override in TINY if not override.startswith(("model", "callbacks", "sampler"))),
    "optimizer.lr=1e-2",
    "lr_schedule.steps=0",
    "ema.max_decay=0.5",
    "trainer.max_steps=6",
    "trainer.val_check_interval=6",
    "trainer.limit_val_batches=1",
)


class Result(NamedTuple):
    """What a command ended with."""

    status: int
    out: str
    err: str


def call(command: str, *overrides: str) -> Result:
    """Call a command, such as "train", or another module that has a `main`, "study.__main__", as from a shell.

    Signals mean afterwards what they did before: one that is to end the tests must not be noted and stop later runs.
    """
    main = importlib.import_module(f"langevin.{command}" if "." in command else f"langevin.commands.{command}").main
    before = sys.argv
    sys.argv = [f"{command}.py", *overrides]
    out, err = io.StringIO(), io.StringIO()
    status = 0
    try:
        with listening(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return Result(status, out.getvalue(), err.getvalue())


def composed(command: str, *overrides: str) -> tuple[DictConfig, dict[str, str]]:
    """A command's config and the choices it was made of."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        own = groups_of(command)
        cfg = compose(command, [force_add_override(override, own) for override in overrides], return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices


def wait_for(
    condition: Callable[[], bool], process: "subprocess.Popen | Script", log: Path, seconds: float = 120
) -> None:
    """Wait until it is true, while the process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
