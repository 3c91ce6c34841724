"""The one training module."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from langevin.autoencoding.model import AutoencoderModel
from langevin.checkpoint import DRAWS
from langevin.codecs.codec import CachedCodec, Codec
from langevin.diffusion.classifier import NoisyClassifier
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import BatchDraws
from langevin.diffusion.objective import Objective
from langevin.magnitudes import force_magnitudes, mp_layers
from langevin.training.ema import EMA
from langevin.training.lr_schedule import LRSchedule
from langevin.training.means import ImageMeans
from langevin.training.shares import full_tensor, like_weights

Batch = Mapping[str, Tensor]
HISTORY = "time_sampler"
"""The checkpoint's entry of what the objective has learnt besides weights; so far of its time sampler alone."""
ROLE = "role"
"""What names a group of an optimizer's parameters, see `Objective.parameters_by_role`."""


def step_seed(
    seed: int,
    rank: int | None,
    batch_index: int,
    validation: bool = False,
    encoding: bool = False,
    deriving: bool = False,
    transforming: bool = False,
) -> int:
    """The seed of a batch's random numbers: a pure function, so a resumed run draws the same ones.

    Args:
        seed: the run's seed.
        rank: the process, for numbers of its own; None for those of the samples, whatever process has them.
        batch_index: the batch, from 0: of training, or of each validation.
        validation: which of the two.
        encoding: whether they are the codec's, not the objective's.
        deriving: whether they are the conditions', for the columns that these compute of the samples.
        transforming: whether they are the conditions', for how these transform the samples.
    """
    # Mixed, since torch's CPU generator looks at the low 32 bits alone.
    kind = validation + 2 * encoding + 4 * deriving + 8 * transforming
    words = [seed, 0 if rank is None else rank + 1, batch_index + 1, kind]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


class DiffusionModule(LightningModule):
    """Trains a model under an objective and keeps its EMA weights. Everything periodic is a callback.

    The random numbers of a training batch are a pure function of (seed, batch): nothing about them needs saving, and
    evaluation in between does not disturb them. A sample gets the same times, noise and condition dropout under any
    number of processes. Dropout inside a network is different: every process draws its own.

    Args:
        model: the model to train: a denoiser, a classifier of noisy images, or an autoencoder.
        objective: what is minimised.
        ema: makes the EMA copy of a network.
        optimizer: makes the optimizer of some parameters, or of groups of them.
        lr_schedule: the factor on the learning rate at each step.
        batch_size: samples per optimizer step, over all ranks.
        seed: the run's seed.
        codec: between the samples and what is diffused; it is not trained.

    Attributes:
        drawn: what the objective has drawn for this process's last training batch, for callbacks: such as "times" (B,),
            "noise" (B, ...), and the entries of the condition that remain after condition dropout.
        gradient_listeners: called with the norm of the model's gradient before each optimizer step.
    """

    drawn: dict[str, Tensor]
    _terms: list[dict[str, Tensor]]  # of the objective, means of this step's micro-batches so far
    _means: ImageMeans  # of this validation so far

    def __init__(
        self,
        model: Denoiser | NoisyClassifier | AutoencoderModel,
        objective: Objective,
        ema: Callable[[nn.Module], EMA],
        optimizer: Callable[[Any], Optimizer],
        lr_schedule: LRSchedule,
        batch_size: int,
        seed: int,
        codec: Codec,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.ema = ema(model.network)
        self.make_optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.batch_size = batch_size
        self.seed = seed
        self.codec = codec
        self.gradient_listeners: list[Callable[[Tensor], None]] = []
        self._mp_layers = mp_layers(model.network, objective)

    @property
    def ema_model(self) -> Any:
        """The model with the EMA weights, which is sampled from and evaluated."""
        return self.model.with_network(self.ema.network).eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the objective has learnt besides weights, and how random numbers are drawn."""
        checkpoint[HISTORY] = self.objective.history()
        checkpoint[DRAWS] = BatchDraws.VERSION

    def load_history(self, checkpoint: dict[str, Any]) -> None:
        """Restore the same."""
        self.objective.load_history(checkpoint[HISTORY])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the objective, and recompute the count of micro-batches from the optimizer step.

        A step may now consist of more or fewer of them. Lightning's counters are set as if the last of them had just
        been trained on. From a checkpoint saved anywhere else (after a validation, at the end) it would otherwise lose
        count of the steps between two rows of the log.
        """
        self.load_history(checkpoint)
        step, loop = checkpoint["global_step"], checkpoint["loops"]["fit_loop"]
        batches = step * self.trainer.accumulate_grad_batches
        for count in ("total", "current"):
            loop["epoch_loop.batch_progress"][count].update(
                ready=batches, started=batches, processed=batches, completed=batches - 1
            )
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step - 1

    @property
    def global_microbatch_size(self) -> int:
        """How many samples a micro-batch has, over all processes."""
        return self.batch_size // self.trainer.accumulate_grad_batches

    def draws(self, seed: int, x: Tensor) -> BatchDraws:
        """The random numbers of this process's samples x (B, ...) of a batch with a seed."""
        rank, world_size = self.global_rank, self.trainer.world_size
        return BatchDraws(seed, x, self.global_microbatch_size, rank, world_size, self._gather)

    def _gather(self, values: Tensor) -> Tensor:
        return torch.as_tensor(self.all_gather(values))

    @torch.no_grad()
    def transformed(self, batch: Batch, batch_idx: int) -> Batch:
        """A batch whose clean samples the model's conditions have transformed, see `Condition.transform`."""
        if "x" not in batch or not isinstance(self.model, Denoiser):
            return batch
        draws = self.draws(step_seed(self.seed, None, batch_idx, transforming=True), batch["x"])
        x, told = self.model.transform(batch["x"], draws)
        return {**batch, "x": x, **told}

    @torch.no_grad()
    def derived(self, batch: Batch, batch_idx: int, validation: bool = False) -> Batch:
        """A batch with the columns that the model's conditions compute of its clean samples, see `Condition.derive`."""
        if "x" not in batch or not isinstance(self.model, Denoiser):
            return batch
        seed = step_seed(self.seed, None, batch_idx, validation, deriving=True)
        return {**batch, **self.model.derive(batch["x"], self.draws(seed, batch["x"]))}

    @torch.no_grad()
    def encoded(self, batch: Batch, batch_idx: int, validation: bool = False) -> Batch:
        """A batch with what is diffused in place of its samples "x", or as "x" beside its latents' "moments"."""
        seed = step_seed(self.seed, None, batch_idx, validation, encoding=True)
        if "moments" not in batch:
            return {**batch, "x": self.codec.encode(batch["x"], self.draws(seed, batch["x"]))}
        assert isinstance(self.codec, CachedCodec)
        return {**batch, "x": self.codec.latents(batch["moments"], self.draws(seed, batch["moments"]))}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of a batch, see `Objective.forward`."""
        torch.manual_seed(step_seed(self.seed, self.global_rank, batch_idx))  # of dropout inside the network
        force_magnitudes(self._mp_layers)
        batch = self.encoded(self.derived(self.transformed(batch, batch_idx), batch_idx), batch_idx)
        draws = self.draws(step_seed(self.seed, None, batch_idx), batch["x"])
        self.objective.step = self.global_step
        terms = {name: term.mean() for name, term in self.objective(self.model, batch, draws).items()}
        self.drawn = draws.drawn
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self._terms = []
        self._terms.append({name: term.detach() for name, term in terms.items()})
        return terms["loss"]

    def on_validation_epoch_start(self) -> None:
        """Begin new means."""
        self._means = ImageMeans()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure the EMA weights' loss on this process's part of a batch of held-out samples, which may be empty.

        Every validation has the same times and noise, so that its losses compare over time. Nothing here waits for
        other processes.
        """
        if len(batch["index"]) == 0:  # the last batch, since it has fewer samples than there are processes
            return
        batch = self.encoded(self.derived(batch, batch_idx, validation=True), batch_idx, validation=True)
        draws = self.draws(step_seed(self.seed, None, batch_idx, validation=True), batch["x"])
        self._means.add(self.objective(self.ema_model, batch, draws))

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
        """Clip the gradient of each role by its norm, where configured, and log the step; listeners see the model's."""
        limit = gradient_clip_val or float("inf")
        weights: dict[str, list[nn.Parameter]] = {}
        for group in optimizer.param_groups:  # an optimizer may have split those of a role
            weights.setdefault(str(group.get(ROLE, "model")), []).extend(group["params"])
        norms = {role: full_tensor(nn.utils.clip_grad_norm_(own, limit)) for role, own in weights.items()}
        norm = norms.pop("model")
        # Lightning counts the step under way from 0; "step" gives loggers the number of steps done, as everywhere here.
        step = self.global_step + 1
        means = torch.stack([torch.stack(list(terms.values())).float() for terms in self._terms]).mean(0)
        if step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            means = torch.as_tensor(self.trainer.strategy.reduce(means, reduce_op="mean"))
        logged = {f"train/{name}": mean for name, mean in zip(self._terms[0], means, strict=True)}
        # Tensors on the CPU: Lightning would copy a plain number to the device and wait for it.
        numbers = {"train/learning_rate": optimizer.param_groups[0]["lr"], "step": float(step)}
        on_cpu = {name: torch.tensor(float(number)) for name, number in numbers.items()}
        others = {f"train/grad_norm/{role}": other for role, other in norms.items()}
        self.log_dict({**logged, "train/grad_norm": norm, **others, **on_cpu})
        for look in self.gradient_listeners:
            look(norm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and update the EMA weights."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.model.network, self.global_step + 1, self.batch_size)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer, and the learning rate's factor at each step."""
        roles = self.objective.parameters_by_role(self.model)
        groups: list[dict[str, Any]] = [{"params": list(own), ROLE: role} for role, own in roles.items()]
        for group in groups[1:]:
            group["weight_decay"] = 0.0  # is meant for the model
        # A single group goes without its name, as in every checkpoint so far.
        optimizer = self.make_optimizer(groups if len(groups) > 1 else groups[0]["params"])
        optimizer.register_load_state_dict_pre_hook(like_weights)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self.lr_schedule), "interval": "step"},
        }
