"""The one training module."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.objective import Objective
from langevin.training.ema import EMA
from langevin.training.lr_schedule import LRSchedule


def step_seed(seed: int, rank: int, batch_index: int | None) -> int:
    """The seed of one rank's random numbers in one batch: a pure function, so a resumed run draws the same ones.

    Args:
        seed: the run's seed.
        rank: the process.
        batch_index: the training batch, from 0; None for validation.
    """
    # Mixed, since torch's CPU generator looks at the low 32 bits alone.
    words = [seed, rank, 0 if batch_index is None else batch_index + 1]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


class DiffusionModule(LightningModule):
    """Trains a denoiser under an objective and keeps the average of its weights. All that is periodic is a callback.

    The random numbers of a training batch (times, noise, dropped labels, dropout) are a pure function of (seed, batch,
    rank): nothing about them needs saving, and evaluation in between does not disturb them.

    Args:
        denoiser: the model.
        objective: what is minimised.
        ema: makes the averaged copy of a network.
        optimizer: makes the optimizer of some parameters.
        lr_schedule: the factor on the learning rate at each step.
        batch_size: images per optimizer step, over all ranks.
        conditional: whether the model is told the labels.
        seed: the run's seed.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        objective: Objective,
        ema: Callable[[nn.Module], EMA],
        optimizer: Callable[[Iterator[nn.Parameter]], Optimizer],
        lr_schedule: LRSchedule,
        batch_size: int,
        conditional: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.objective = objective
        self.ema = ema(denoiser.network)
        self.make_optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.batch_size = batch_size
        self.conditional = conditional
        self.seed = seed

    @property
    def averaged_denoiser(self) -> Denoiser:
        """The model with the averaged weights: what is sampled from and evaluated."""
        denoiser = self.denoiser
        return Denoiser(self.ema.network, denoiser.schedule, denoiser.parameterization, denoiser.variance).eval()

    def condition(self, labels: Tensor) -> Condition | None:
        """The condition that goes with labels (B,); None for an unconditional model."""
        return {"label": labels} if self.conditional else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Count micro-batches from the optimizer step on, since a step may now be made of more or fewer of them.

        Lightning is told that it stands where the last of them has just been trained on; of a checkpoint saved anywhere
        else (after a validation, at the end) it would lose count of the steps between two rows of the log.
        """
        step, loop = checkpoint["global_step"], checkpoint["loops"]["fit_loop"]
        batches = step * self.trainer.accumulate_grad_batches
        for count in ("total", "current"):
            loop["epoch_loop.batch_progress"][count].update(
                ready=batches, started=batches, processed=batches, completed=batches - 1
            )
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step - 1

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Make the batch's random numbers its own."""
        torch.manual_seed(step_seed(self.seed, self.global_rank, batch_idx))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The mean loss of a batch (pictures (B, C, H, W) in [-1, 1], labels (B,))."""
        x, labels = batch
        terms = {name: term.mean() for name, term in self.objective(self.denoiser, x, self.condition(labels)).items()}
        # Lightning counts the step under way from 0; "step" tells loggers how many are done, as all else here counts.
        done = {"step": torch.tensor(float(self.global_step + 1))}
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()} | done, batch_size=len(x))
        return terms["loss"]

    def on_validation_epoch_start(self) -> None:
        """Give every validation the same times and noise, so that its losses compare over time."""
        torch.manual_seed(step_seed(self.seed, self.global_rank, None))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the averaged weights' loss on held-out pictures."""
        x, labels = batch
        terms = self.objective(self.averaged_denoiser, x, self.condition(labels))
        logged = {f"val/{name}": term.mean() for name, term in terms.items()}
        self.log_dict(logged, batch_size=len(x), on_epoch=True, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Say which step the losses belong to: once, since a mean over the batches would be rounded."""
        self.log("step", float(self.global_step), sync_dist=True, reduce_fx="max")

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient by its norm, where asked for, and log the norm it had."""
        norm = nn.utils.clip_grad_norm_(self.denoiser.network.parameters(), gradient_clip_val or float("inf"))
        self.log_dict({"train/grad_norm": norm, "train/learning_rate": optimizer.param_groups[0]["lr"]})

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and let the average follow."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.denoiser.network, self.global_step + 1, self.batch_size)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer, and the learning rate's factor at each step."""
        optimizer = self.make_optimizer(self.denoiser.network.parameters())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self.lr_schedule), "interval": "step"},
        }
