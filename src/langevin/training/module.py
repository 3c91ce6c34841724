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
from langevin.diffusion.level import broadcast_to
from langevin.diffusion.objective import Objective
from langevin.diffusion.time_sampler import TimeSampler, UniformTimes
from langevin.training.ema import EMA
from langevin.training.lr_schedule import LRSchedule
from langevin.training.means import ImageMeans
from langevin.training.shares import full_tensor, like_weights


def step_seed(seed: int, rank: int | None, batch_index: int | None) -> int:
    """The seed of a batch's random numbers: a pure function, so a resumed run draws the same ones.

    Args:
        seed: the run's seed.
        rank: the process, for numbers of its own; None for those that all processes draw alike.
        batch_index: the training batch, from 0; None for validation.
    """
    # Mixed, since torch's CPU generator looks at the low 32 bits alone.
    words = [seed, 0 if rank is None else rank + 1, 0 if batch_index is None else batch_index + 1]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


class DiffusionModule(LightningModule):
    """Trains a model under an objective and keeps its EMA weights. Everything periodic is a callback.

    The random numbers of a training batch are a pure function of (seed, batch): nothing about them needs saving, and
    evaluation in between does not disturb them. Each process draws times, noise and condition dropout for the images of
    all processes, and then takes its own part: an image gets the same ones under any number of processes. Dropout
    inside a network is different: every process draws its own.

    Args:
        model: the model to train: a denoiser, or a classifier of noisy images.
        objective: what is minimised.
        time_sampler: where the times of training come from.
        ema: makes the EMA copy of a network.
        optimizer: makes the optimizer of some parameters.
        lr_schedule: the factor on the learning rate at each step.
        batch_size: images per optimizer step, over all ranks.
        conditional: whether the model or its objective is given the labels.
        seed: the run's seed.

    Attributes:
        drawn: what was drawn for this process's last training batch, for callbacks: "times" (B,), "noise" (B, C, H, W),
            and the entries of the condition that remain after condition dropout.
    """

    drawn: dict[str, Tensor]
    _terms: list[dict[str, Tensor]]  # of the objective, means of this step's micro-batches so far
    _means: ImageMeans  # of this validation so far

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
        self.ema = ema(model.network)
        self.make_optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.batch_size = batch_size
        self.conditional = conditional
        self.seed = seed

    @property
    def ema_model(self) -> Any:
        """The model with the EMA weights, which is sampled from and evaluated."""
        return self.model.with_network(self.ema.network).eval()

    def condition(self, labels: Tensor) -> Condition | None:
        """The condition for labels (B,); None for an unconditional model."""
        return {"label": labels} if self.conditional else None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the time sampler's state."""
        checkpoint["time_sampler"] = self.time_sampler.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the time sampler, and recompute the count of micro-batches from the optimizer step.

        A step may now consist of more or fewer of them. Lightning's counters are set as if the last of them had just
        been trained on. From a checkpoint saved anywhere else (after a validation, at the end) it would otherwise lose
        count of the steps between two rows of the log.
        """
        self.time_sampler.load_state_dict(checkpoint["time_sampler"])
        step, loop = checkpoint["global_step"], checkpoint["loops"]["fit_loop"]
        batches = step * self.trainer.accumulate_grad_batches
        for count in ("total", "current"):
            loop["epoch_loop.batch_progress"][count].update(
                ready=batches, started=batches, processed=batches, completed=batches - 1
            )
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step - 1

    def share(self, drawn: Tensor, n: int) -> Tensor:
        """The part of what was drawn for all processes' images that belongs to the `n` images of this one."""
        return drawn[self.global_rank :: self.trainer.world_size][:n]

    def draw_times(self, time_sampler: TimeSampler) -> tuple[Tensor, Tensor]:
        """The times and their importance, for the images of all processes' batches."""
        return time_sampler.sample(self.global_microbatch_size, self.model.schedule, torch.default_generator)

    def draw_noise(self, x: Tensor) -> Tensor:
        """The noise of this process's images."""
        batch, channels, *size = x.shape
        # Channels last in memory, as the images are.
        noise = torch.randn(self.global_microbatch_size, *size, channels, device=x.device)
        return self.share(noise, batch).movedim(-1, 1)

    @property
    def global_microbatch_size(self) -> int:
        """How many images a micro-batch has, over all processes."""
        return self.batch_size // self.trainer.accumulate_grad_batches

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The mean loss of a batch (images (B, C, H, W) in [-1, 1], labels (B,))."""
        x, labels = batch
        torch.manual_seed(step_seed(self.seed, None, batch_idx))
        all_times, importance = self.draw_times(self.time_sampler)
        t, importance = self.share(all_times, len(x)), self.share(importance, len(x))
        eps = self.draw_noise(x)
        cond = self.condition(labels)
        if cond is not None and isinstance(self.model, Denoiser):
            cond = self.model.drop(
                cond, lambda: self.share(torch.rand(self.global_microbatch_size, device=x.device), len(x))
            )
        torch.manual_seed(step_seed(self.seed, self.global_rank, batch_idx))
        self.drawn = {"times": t, "noise": eps, **(cond or {})}
        terms = self.objective(self.model, x, cond, t, eps)
        if self.time_sampler.loss_aware:
            losses = torch.as_tensor(self.all_gather(terms["loss"].detach())).reshape(-1, len(x))
            self.time_sampler.update(all_times, losses.T.flatten().cpu())
        terms["loss"] = broadcast_to(importance, x).flatten() * terms["loss"]
        terms = {name: term.mean() for name, term in terms.items()}
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self._terms = []
        self._terms.append({name: term.detach() for name, term in terms.items()})
        return terms["loss"]

    def on_validation_epoch_start(self) -> None:
        """Give every validation the same times and noise, so that its losses compare over time."""
        self._means = ImageMeans()
        torch.manual_seed(step_seed(self.seed, None, None))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure the EMA weights' loss on this process's part of a batch of held-out images, which may be empty.

        Nothing here waits for other processes.
        """
        x, labels = batch
        if len(x) == 0:  # the last batch, since it has fewer images than there are processes
            return
        # Times that follow the losses would be others every time; the mean they estimate is that over uniform ones.
        all_times, importance = self.draw_times(UniformTimes() if self.time_sampler.loss_aware else self.time_sampler)
        t = self.share(all_times, len(x))
        terms = self.objective(self.ema_model, x, self.condition(labels), t, self.draw_noise(x))
        terms["loss"] = broadcast_to(self.share(importance, len(x)), x).flatten() * terms["loss"]
        self._means.add(terms)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all held-out images, and which step they belong to."""
        means = self._means.compute(self.trainer.strategy)
        step = torch.tensor(self.global_step, dtype=torch.float64)
        self.log_same({f"val/{name}": mean for name, mean in means.items()} | {"step": step})

    def log_same(self, values: dict[str, Tensor]) -> None:
        """Log values of a validation, once in it, that are the same on every process: as they are, without rounding."""
        on_cpu = {name: value.cpu() for name, value in values.items()}
        self.log_dict(on_cpu, batch_size=1, sync_dist=False)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient by its norm, where configured, log the step, and pass the norm to callbacks."""
        weights = self.model.network.parameters()
        norm = full_tensor(nn.utils.clip_grad_norm_(weights, gradient_clip_val or float("inf")))
        # Lightning counts the step under way from 0; "step" gives loggers the number of steps done, as everywhere here.
        step = self.global_step + 1
        means = torch.stack([torch.stack(list(terms.values())).float() for terms in self._terms]).mean(0)
        if step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            means = torch.as_tensor(self.trainer.strategy.reduce(means, reduce_op="mean"))
        logged = {f"train/{name}": mean for name, mean in zip(self._terms[0], means, strict=True)}
        # Tensors on the CPU: Lightning would copy a plain number to the device and wait for it.
        numbers = {"train/learning_rate": optimizer.param_groups[0]["lr"], "step": float(step)}
        on_cpu = {name: torch.tensor(float(number)) for name, number in numbers.items()}
        self.log_dict({**logged, "train/grad_norm": norm, **on_cpu})
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "on_gradient"):
                callback.on_gradient(self.trainer, self, norm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and update the EMA weights."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.model.network, self.global_step + 1, self.batch_size)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer, and the learning rate's factor at each step."""
        optimizer = self.make_optimizer(self.model.network.parameters())
        optimizer.register_load_state_dict_pre_hook(like_weights)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self.lr_schedule), "interval": "step"},
        }
