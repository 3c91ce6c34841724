"""What is minimised."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional

from langevin.diffusion.bound import step_term
from langevin.diffusion.classifier import NoisyClassifier
from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.draws import BatchDraws
from langevin.diffusion.level import broadcast_to, combine
from langevin.diffusion.process import Noised, Prediction
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.time_sampler import TimeSampler, UniformTimes
from langevin.diffusion.variance import Variance
from langevin.diffusion.weighting import Weighting
from langevin.errors import UserError

Model = TypeVar("Model", bound=nn.Module)
Timed = TypeVar("Timed", Denoiser, NoisyClassifier)


class Objective(nn.Module, ABC, Generic[Model]):
    """The loss of a batch: what is drawn for it, which models it calls, and what of theirs it trains.

    It is in training mode while a model is trained, and in evaluation mode in a validation. Weights of its own, such as
    a learned weighting's, are trained and saved with the model's.

    Attributes:
        step: the optimizer step under way, from 0, as the trainer sets it.
        trains: the kind of model that it trains.
        logs: the names of the terms that it returns; "*" where they are not known.
    """

    step: int = 0
    trains: ClassVar[type[nn.Module]] = Denoiser
    logs: ClassVar[tuple[str, ...]] = ("*",)

    @abstractmethod
    def forward(self, model: Model, batch: Mapping[str, Tensor], draws: BatchDraws) -> dict[str, Tensor]:
        """The terms of the loss, one number a sample.

        Args:
            model: what is trained.
            batch: this process's samples, by columns of B rows: "x" (B, ...), images in [-1, 1]; "label" int64 (B,),
                -1 for none; and what else the data supplies.
            draws: their random numbers; what is worth recording of them goes to its `drawn`.

        Returns:
            tensors of shape (B,), among them "loss", whose mean is minimised.
        """

    def check(self, schedule: Schedule, variance: Variance) -> None:
        """Check that the objective is compatible with the other parts of the model.

        Raises:
            UserError: when it does not.
        """

    def parameters_by_role(self, model: Model) -> dict[str, Iterable[nn.Parameter]]:
        """What is trained, by roles: each is a group of one optimizer, and its gradient is clipped by itself."""
        network: Any = model.network
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        return {"model": [*trained, *self.parameters()]}

    def history(self) -> dict[str, Any]:
        """What it has learnt besides weights, for a checkpoint."""
        return {}

    def load_history(self, history: dict[str, Any]) -> None:
        """Restore what `history` gave."""


class TimedObjective(Objective[Timed]):
    """A loss that takes each sample at one random time.

    Args:
        time_sampler: where the times come from.

    Attributes:
        times_by: the term by which such a sampler as `loss_aware` chooses times.
    """

    times_by: ClassVar[str] = "loss"

    def __init__(self, time_sampler: TimeSampler) -> None:
        super().__init__()
        self.time_sampler = time_sampler

    def forward(self, model: Timed, batch: Mapping[str, Tensor], draws: BatchDraws) -> dict[str, Tensor]:
        """See `Objective`."""
        x, sampler = batch["x"], self.time_sampler
        if sampler.loss_aware and not self.training:
            # Times that follow the losses would be others every time; the mean they estimate is over uniform ones.
            sampler = UniformTimes()
        times, importance = sampler.sample(draws.total, model.process.schedule, draws.shared)
        t = draws.mine(times)
        noised = model.process.corrupt(x, t, draws)
        cond = self.condition(model, batch, draws)
        draws.drawn = {"times": t, "noise": noised.eps, **(cond or {})}
        terms = self.terms(model, x, noised, cond, t)
        if sampler.loss_aware:
            sampler.update(times, draws.gather(terms[self.times_by].detach()).cpu())
        return terms | {"loss": broadcast_to(draws.mine(importance), x).flatten() * terms["loss"]}

    @abstractmethod
    def condition(self, model: Timed, batch: Mapping[str, Tensor], draws: BatchDraws) -> Condition | None:
        """What the model, or the loss, is given of a batch beside x."""

    @abstractmethod
    def terms(self, model: Timed, x: Tensor, noised: Noised, cond: Condition | None, t: Tensor) -> dict[str, Tensor]:
        """The terms of the loss at given times and noise, as `forward` returns them.

        Args:
            model: what is trained.
            x: clean samples (B, ...).
            noised: the same with noise.
            cond: what `condition` gave.
            t: the times (B,), float64 on the CPU.
        """

    def history(self) -> dict[str, Any]:
        """See `Objective`: the time sampler's."""
        return self.time_sampler.state_dict()

    def load_history(self, history: dict[str, Any]) -> None:
        """See `Objective`."""
        self.time_sampler.load_state_dict(history)


class Denoising(TimedObjective[Denoiser]):
    """A loss of a denoiser's prediction at one random time a sample."""

    def condition(self, model: Denoiser, batch: Mapping[str, Tensor], draws: BatchDraws) -> Condition | None:
        """See `TimedObjective`; with condition dropout in training."""
        cond = model.condition(batch)
        return cond if cond is None or not self.training else model.drop(cond, draws)


class Simple(Denoising):
    """The weighted squared error of the prediction: L2.

    The error is taken on the network's own output F, where it is computed without loss of precision, and scaled to
    what the weighting means by it: at a given x_t, ``|F error| = |alpha b - sigma a| / sigma * |x error|``.

    Source: DDPM (Ho et al. 2020), equation 14, for any parameterization and weighting.

    Args:
        time_sampler: where the times come from.
        weighting: how much each noise level counts.
    """

    logs: ClassVar[tuple[str, ...]] = ("loss", "mse")

    def __init__(self, time_sampler: TimeSampler, weighting: Weighting) -> None:
        super().__init__(time_sampler)
        self.weighting = weighting

    def terms(self, model: Denoiser, x: Tensor, noised: Noised, cond: Condition | None, t: Tensor) -> dict[str, Tensor]:
        """See `TimedObjective`; "mse" is the unweighted squared error of the network's own output."""
        return self.errors(model, model(noised.x_t, t, cond), x, noised.eps, t)

    def errors(
        self, denoiser: Denoiser, prediction: Prediction, x: Tensor, eps: Tensor, t: Tensor
    ) -> dict[str, Tensor]:
        """The terms for a prediction that has been made."""
        (alpha, sigma), (a, b) = denoiser.schedule(t), denoiser.parameterization.mix(denoiser.schedule, t)
        error = prediction.raw - combine(a, x, b, eps)
        factor = torch.sqrt(self.weighting(denoiser.schedule, t)) * sigma / (alpha * b - sigma * a).abs()
        return {
            "loss": self.penalty(error, broadcast_to(factor, error)),
            "mse": error.detach().square().flatten(1).mean(1),
        }

    def penalty(self, error: Tensor, factor: Tensor) -> Tensor:
        """The mean penalty (B,) on ``factor * error``, the error (B, ...) and the factor (B, 1, ...)."""
        return factor.flatten().square() * error.square().flatten(1).mean(1)

    def check(self, schedule: Schedule, variance: Variance) -> None:
        """See `Objective`."""
        if variance.learned:
            raise UserError(
                "does not train a learned variance; take objective=hybrid or objective=vlb, or a variance that is fixed"
            )


class L1(Simple):
    """The weighted absolute error: with the square root of the weight, that is, of the squared error's scale."""

    def penalty(self, error: Tensor, factor: Tensor) -> Tensor:
        """See `Simple`."""
        return factor.flatten() * error.abs().flatten(1).mean(1)


class Huber(Simple):
    """Squared where the weighted error is small, absolute where it is large.

    Args:
        time_sampler: where the times come from.
        weighting: how much each noise level counts.
        delta: where the square turns into the absolute value.
    """

    def __init__(self, time_sampler: TimeSampler, weighting: Weighting, delta: Annotated[float, Gt(0)] = 0.1) -> None:
        super().__init__(time_sampler, weighting)
        self.delta = delta

    def penalty(self, error: Tensor, factor: Tensor) -> Tensor:
        """See `Simple`."""
        weighted = factor * error
        huber = functional.huber_loss(weighted, torch.zeros_like(weighted), reduction="none", delta=self.delta)
        # Twice, so that small errors are penalised by their square, as elsewhere.
        return 2 * huber.flatten(1).mean(1)


class VLBObjective(Denoising):
    """The true variational bound, in bits a dimension: T times the term of a random step.

    Its mean over uniform times is the bound but for L_T, which has no parameters. It fixes the weight of each noise
    level: a weighting is not used. Source: DDPM (Ho et al. 2020), equation 5; Improved DDPM (Nichol and Dhariwal
    2021), section 3.3, with ``time_sampler=loss_aware``.
    """

    logs = ("loss",)

    def terms(self, model: Denoiser, x: Tensor, noised: Noised, cond: Condition | None, t: Tensor) -> dict[str, Tensor]:
        """See `TimedObjective`."""
        return {"loss": vlb_term(model, model(noised.x_t, t, cond), x, t)}

    def check(self, schedule: Schedule, variance: Variance) -> None:
        """See `Objective`."""
        needs_steps(schedule)


class Hybrid(Simple):
    """L_simple for the mean, and a little of the bound for the variance alone.

    Source: Improved DDPM (Nichol and Dhariwal 2021), equation 16.

    Args:
        time_sampler: where the times come from.
        weighting: how much each noise level counts in L_simple.
        vlb_weight: how much the bound counts, in bits a dimension.
    """

    logs = ("loss", "mse", "vlb")

    def __init__(
        self, time_sampler: TimeSampler, weighting: Weighting, vlb_weight: Annotated[float, Gt(0)] = 0.001
    ) -> None:
        super().__init__(time_sampler, weighting)
        self.vlb_weight = vlb_weight

    def errors(
        self, denoiser: Denoiser, prediction: Prediction, x: Tensor, eps: Tensor, t: Tensor
    ) -> dict[str, Tensor]:
        """See `Simple`; "vlb" is the bound in bits a dimension."""
        terms = super().errors(denoiser, prediction, x, eps, t)
        vlb = vlb_term(denoiser, prediction._replace(x=prediction.x.detach()), x, t)
        return terms | {"loss": terms["loss"] + self.vlb_weight * vlb, "vlb": vlb.detach()}

    def check(self, schedule: Schedule, variance: Variance) -> None:
        """See `Objective`."""
        needs_steps(schedule)
        if not variance.learned:
            raise UserError(
                "trains a learned variance, and the variance is fixed; take variance=learned_range, or objective=simple"
            )


class CrossEntropy(TimedObjective[NoisyClassifier]):
    """Minus the log-probability of the right class, of noisy images: what a classifier that guides is trained by.

    Source: ADM (Dhariwal and Nichol 2021), section 4.
    """

    trains = NoisyClassifier
    logs = ("loss", "accuracy")

    def condition(self, model: NoisyClassifier, batch: Mapping[str, Tensor], draws: BatchDraws) -> Condition:
        """See `TimedObjective`: the labels."""
        return {"label": batch["label"]}

    def terms(
        self, model: NoisyClassifier, x: Tensor, noised: Noised, cond: Condition | None, t: Tensor
    ) -> dict[str, Tensor]:
        """See `TimedObjective`; "accuracy" is 1 where the right class is the likeliest, else 0."""
        assert cond is not None
        label = cond["label"]
        log_probabilities = model(noised.x_t, t)
        accuracy = (log_probabilities.detach().argmax(1) == label).to(x.dtype)
        return {"loss": functional.nll_loss(log_probabilities, label, reduction="none"), "accuracy": accuracy}


def vlb_term(denoiser: Denoiser, prediction: Prediction, x: Tensor, t: Tensor) -> Tensor:
    """T times the bound's term of the step from t to t - 1, in bits a dimension (B,)."""
    assert denoiser.schedule.num_steps is not None
    return denoiser.schedule.num_steps / math.log(2) * step_term(denoiser, prediction, x, t - 1, t)


def needs_steps(schedule: Schedule) -> None:
    """Check that the schedule has discrete steps, whose terms make up the bound.

    Raises:
        UserError: when it has none.
    """
    if schedule.num_steps is None:
        raise UserError(
            "is a sum over discrete steps, but the schedule is continuous; "
            "set schedule.num_steps, or take objective=simple weighting=vlb"
        )
