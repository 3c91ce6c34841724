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

from langevin.diffusion.classifier import NoisyClassifier
from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.level import like
from langevin.diffusion.objective import Objective
from langevin.diffusion.time_sampler import TimeSampler, Uniform
from langevin.training.ema import EMA
from langevin.training.lr_schedule import LRSchedule


def step_seed(seed: int, rank: int | None, batch_index: int | None) -> int:
    """The seed of one rank's random numbers in one batch: a pure function, so a resumed run draws the same ones.

    Args:
        seed: the run's seed.
        rank: the process; None for the numbers that all share.
        batch_index: the training batch, from 0; None for validation.
    """
    # Mixed, since torch's CPU generator looks at the low 32 bits alone.
    words = [seed, 0 if rank is None else rank + 1, 0 if batch_index is None else batch_index + 1]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


class DiffusionModule(LightningModule):
    """Trains a model under an objective and keeps the average of its weights. All that is periodic is a callback.

    The random numbers of a training batch (times, noise, dropped labels, dropout) are a pure function of (seed, batch,
    rank): nothing about them needs saving, and evaluation in between does not disturb them.

    Args:
        model: what is trained: a denoiser, or a classifier of noisy pictures.
        objective: what is minimised.
        time_sampler: where the times of training come from.
        ema: makes the averaged copy of a network.
        optimizer: makes the optimizer of some parameters.
        lr_schedule: the factor on the learning rate at each step.
        batch_size: images per optimizer step, over all ranks.
        conditional: whether the model or its objective is told the labels.
        seed: the run's seed.

    Attributes:
        times: (B,) of this rank's last training batch, for callbacks.
    """

    times: Tensor

    def __init__(
        self,
        model: Denoiser | NoisyClassifier,
        objective: Objective,
        time_sampler: TimeSampler,
        ema: Callable[[nn.Module], EMA],
        optimizer: Callable[[Iterator[nn.Parameter]], Optimizer],
        lr_schedule: LRSchedule,
        batch_size: int,
        conditional: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.time_sampler = time_sampler
        self.times_generator = torch.Generator()
        self.ema = ema(model.network)
        self.make_optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.batch_size = batch_size
        self.conditional = conditional
        self.seed = seed

    @property
    def averaged(self) -> Any:
        """The model with the averaged weights: what is sampled from and evaluated."""
        return self.model.with_network(self.ema.network).eval()

    def condition(self, labels: Tensor) -> Condition | None:
        """What labels (B,) say; None where nobody is told."""
        return {"label": labels} if self.conditional else None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the time sampler has learnt."""
        checkpoint["time_sampler"] = self.time_sampler.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what the time sampler had learnt, and count micro-batches anew from the optimizer step.

        A step may now be made of more or fewer of them. Lightning is told that it stands where the last of them has
        just been trained on; of a checkpoint saved anywhere else (after a validation, at the end) it would lose count
        of the steps between two rows of the log.
        """
        self.time_sampler.load_state_dict(checkpoint["time_sampler"])
        step, loop = checkpoint["global_step"], checkpoint["loops"]["fit_loop"]
        batches = step * self.trainer.accumulate_grad_batches
        for count in ("total", "current"):
            loop["epoch_loop.batch_progress"][count].update(
                ready=batches, started=batches, processed=batches, completed=batches - 1
            )
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step - 1

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Make the batch's random numbers its own."""
        self.seed_batch(batch_idx)

    def seed_batch(self, batch_index: int | None) -> None:
        """Seed this rank's random numbers, and those that all ranks share."""
        torch.manual_seed(step_seed(self.seed, self.global_rank, batch_index))
        self.times_generator.manual_seed(step_seed(self.seed, None, batch_index))

    def draw_times(self, n: int, time_sampler: TimeSampler) -> tuple[Tensor, Tensor, Tensor]:
        """The times of all ranks' batches (world size * n,), and of this rank's batch the times and importance (n,)."""
        t, importance = time_sampler.sample(n * self.trainer.world_size, self.model.schedule, self.times_generator)
        mine = slice(self.global_rank * n, (self.global_rank + 1) * n)
        return t, t[mine], importance[mine]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The mean loss of a batch (pictures (B, C, H, W) in [-1, 1], labels (B,))."""
        x, labels = batch
        all_times, t, importance = self.draw_times(len(x), self.time_sampler)
        self.times = t
        terms = self.objective(self.model, x, self.condition(labels), t)
        if self.time_sampler.adapts:
            losses = self.all_gather(terms["loss"].detach())
            self.time_sampler.update(all_times, torch.as_tensor(losses).flatten().cpu())
        terms["loss"] = like(importance, x).flatten() * terms["loss"]
        terms = {name: term.mean() for name, term in terms.items()}
        # Lightning counts the step under way from 0; "step" tells loggers how many are done, as all else here counts.
        done = {"step": torch.tensor(float(self.global_step + 1))}
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()} | done, batch_size=len(x))
        return terms["loss"]

    def on_validation_epoch_start(self) -> None:
        """Give every validation the same times and noise, so that its losses compare over time."""
        self.seed_batch(None)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the averaged weights' loss on held-out pictures."""
        x, labels = batch
        # Times that follow the losses would be others every time; the mean they estimate is that over uniform ones.
        _, t, importance = self.draw_times(len(x), Uniform() if self.time_sampler.adapts else self.time_sampler)
        terms = self.objective(self.averaged, x, self.condition(labels), t)
        terms["loss"] = like(importance, x).flatten() * terms["loss"]
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
        """Clip the gradient by its norm, where asked for, log the norm it had, and show it to who judges the step."""
        norm = nn.utils.clip_grad_norm_(self.model.network.parameters(), gradient_clip_val or float("inf"))
        self.log_dict({"train/grad_norm": norm, "train/learning_rate": optimizer.param_groups[0]["lr"]})
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "on_gradient"):
                callback.on_gradient(self.trainer, self, norm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and let the average follow."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.model.network, self.global_step + 1, self.batch_size)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer, and the learning rate's factor at each step."""
        optimizer = self.make_optimizer(self.model.network.parameters())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self.lr_schedule), "interval": "step"},
        }
