"""Langevin's own part: the fit that `train.py` makes, under a clock."""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from experiments.speed.ours import composed
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from torch import Tensor

from langevin.assembly.run import make_data, make_module, make_trainer

RECIPE = (
    "experiment=digits",
    "conditions=[]",
    "metrics=[]",
    "callbacks=[samples]",
    "callbacks.samples.every_n_steps=1000000000",
    "trainer=cpu",
    "trainer.val_check_interval=null",
)
"""Of train.py: the quickstart's recipe without classes, and without grids, checkpoints, validation and metrics."""


class Timed(Callback):
    """Counts the CPU seconds of a fit, from its first batch to its last, and lets others have their turns in between.

    All that Lightning, the data, the callbacks and the log cost belongs to the fit. To be the last of the callbacks.

    Args:
        turn: is called with the seconds so far, every so many steps; its own time does not count.
        every: steps.

    Attributes:
        cpu: seconds, user and system.
    """

    def __init__(self, turn: Callable[[float], object], every: int) -> None:
        self.turn = turn
        self.every = every
        self.cpu = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.began = time.process_time()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock while others have their turn."""
        if trainer.global_step % self.every and trainer.global_step != trainer.max_steps:
            return
        self.cpu += time.process_time() - self.began
        self.turn(self.cpu)
        self.began = time.process_time()


def config(overrides: Sequence[str] = ()) -> DictConfig:
    """The recipe's config with further options of train.py."""
    return composed([*RECIPE, *overrides])


def train(overrides: Sequence[str], turn: Callable[[float], object], every: int) -> tuple[dict[str, Tensor], float]:
    """Train by the recipe.

    Args:
        overrides: further options of train.py, such as the number of steps.
        turn: see `Timed`.
        every: see `Timed`.

    Returns:
        the EMA weights, and the CPU seconds.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")  # advice
    cfg = config(overrides)
    data = make_data(cfg)
    data.prepare_data()
    torch.manual_seed(cfg.seed)
    module = make_module(cfg, data.spec)
    timed = Timed(turn, every)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(cfg, Path(folder), data.spec, data, module.codec)
        trainer.callbacks.append(timed)
        trainer.fit(module, datamodule=data)
    return module.ema.network.state_dict(), timed.cpu
