"""What is minimised."""

import math
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Generic, TypeVar

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional

from langevin.diffusion.bound import step_term
from langevin.diffusion.classifier import NoisyClassifier
from langevin.diffusion.denoiser import Condition, Denoiser, Prediction
from langevin.diffusion.level import broadcast_to, combine
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.variance import Variance
from langevin.diffusion.weighting import Weighting
from langevin.errors import UserError

Model = TypeVar("Model", Denoiser, NoisyClassifier, contravariant=True)


class Objective(ABC, Generic[Model]):
    """The loss of a batch of clean images, each at one time.

    Attributes:
        classifies: whether it trains a classifier of noisy images, not a denoiser.
    """

    classifies: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, model: Model, x: Tensor, cond: Condition | None, t: Tensor, eps: Tensor) -> dict[str, Tensor]:
        """The terms of the loss, one number per image.

        Args:
            model: what is trained.
            x: clean images (B, C, H, W) in [-1, 1].
            cond: the condition of the batch, such as {"label": int64 (B,)}.
            t: the times (B,), float64 on the CPU.
            eps: the noise (B, C, H, W), from a standard normal.

        Returns:
            tensors of shape (B,), among them "loss", whose mean is minimised.
        """

    def check(self, schedule: Schedule, variance: Variance) -> None:
        """Check that the objective is compatible with the other parts of the model.

        Raises:
            UserError: when it does not.
        """


class Simple(Objective[Denoiser]):
    """The weighted squared error of the prediction: L2.

    The error is taken on the network's own output F, where it is computed without loss of precision, and scaled to
    what the weighting means by it: at a given x_t, ``|F error| = |alpha b - sigma a| / sigma * |x error|``.

    Source: DDPM (Ho et al. 2020), equation 14, for any parameterization and weighting.

    Args:
        weighting: how much each noise level counts.
    """

    def __init__(self, weighting: Weighting) -> None:
        self.weighting = weighting

    def __call__(self, model: Denoiser, x: Tensor, cond: Condition | None, t: Tensor, eps: Tensor) -> dict[str, Tensor]:
        """See `Objective`; "mse" is the unweighted squared error of the network's own output."""
        return self.terms(model, model(noised(model.schedule, x, eps, t), t, cond), x, eps, t)

    def terms(self, denoiser: Denoiser, prediction: Prediction, x: Tensor, eps: Tensor, t: Tensor) -> dict[str, Tensor]:
        """The terms for a prediction that has been made."""
        (alpha, sigma), (a, b) = denoiser.schedule(t), denoiser.parameterization.mix(denoiser.schedule, t)
        error = prediction.raw - combine(a, x, b, eps)
        factor = torch.sqrt(self.weighting(denoiser.schedule, t)) * sigma / (alpha * b - sigma * a).abs()
        return {
            "loss": self.penalty(error, broadcast_to(factor, error)),
            "mse": error.detach().square().flatten(1).mean(1),
        }

    def penalty(self, error: Tensor, factor: Tensor) -> Tensor:
        """The mean penalty (B,) on ``factor * error``, the error (B, C, H, W) and the factor (B, 1, 1, 1)."""
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
        weighting: how much each noise level counts.
        delta: where the square turns into the absolute value.
    """

    def __init__(self, weighting: Weighting, delta: Annotated[float, Gt(0)] = 0.1) -> None:
        super().__init__(weighting)
        self.delta = delta

    def penalty(self, error: Tensor, factor: Tensor) -> Tensor:
        """See `Simple`."""
        weighted = factor * error
        huber = functional.huber_loss(weighted, torch.zeros_like(weighted), reduction="none", delta=self.delta)
        # Twice, so that small errors are penalised by their square, as elsewhere.
        return 2 * huber.flatten(1).mean(1)


class VLBObjective(Objective[Denoiser]):
    """The true variational bound, in bits a dimension: T times the term of a random step.

    Its mean over uniform times is the bound but for L_T, which has no parameters. It fixes the weight of each noise
    level: a weighting is not used. Source: DDPM (Ho et al. 2020), equation 5; Improved DDPM (Nichol and Dhariwal
    2021), section 3.3, with ``time_sampler=loss_aware``.
    """

    def __call__(self, model: Denoiser, x: Tensor, cond: Condition | None, t: Tensor, eps: Tensor) -> dict[str, Tensor]:
        """See `Objective`."""
        prediction = model(noised(model.schedule, x, eps, t), t, cond)
        return {"loss": vlb_term(model, prediction, x, t)}

    def check(self, schedule: Schedule, variance: Variance) -> None:
        """See `Objective`."""
        needs_steps(schedule)


class Hybrid(Simple):
    """L_simple for the mean, and a little of the bound for the variance alone.

    Source: Improved DDPM (Nichol and Dhariwal 2021), equation 16.

    Args:
        weighting: how much each noise level counts in L_simple.
        vlb_weight: how much the bound counts, in bits a dimension.
    """

    def __init__(self, weighting: Weighting, vlb_weight: Annotated[float, Gt(0)] = 0.001) -> None:
        super().__init__(weighting)
        self.vlb_weight = vlb_weight

    def terms(self, denoiser: Denoiser, prediction: Prediction, x: Tensor, eps: Tensor, t: Tensor) -> dict[str, Tensor]:
        """See `Simple`; "vlb" is the bound in bits a dimension."""
        terms = super().terms(denoiser, prediction, x, eps, t)
        vlb = vlb_term(denoiser, prediction._replace(x=prediction.x.detach()), x, t)
        return terms | {"loss": terms["loss"] + self.vlb_weight * vlb, "vlb": vlb.detach()}

    def check(self, schedule: Schedule, variance: Variance) -> None:
        """See `Objective`."""
        needs_steps(schedule)
        if not variance.learned:
            raise UserError(
                "trains a learned variance, and the variance is fixed; take variance=learned_range, or objective=simple"
            )


class CrossEntropy(Objective[NoisyClassifier]):
    """Minus the log-probability of the right class, of noisy images: what a classifier that guides is trained by.

    Source: ADM (Dhariwal and Nichol 2021), section 4.
    """

    classifies = True

    def __call__(
        self, model: NoisyClassifier, x: Tensor, cond: Condition | None, t: Tensor, eps: Tensor
    ) -> dict[str, Tensor]:
        """See `Objective`; "accuracy" is 1 where the right class is the likeliest, else 0."""
        assert cond is not None, "langevin.assembly ensures labels"
        label = cond["label"]
        log_probabilities = model(noised(model.schedule, x, eps, t), t)
        accuracy = (log_probabilities.detach().argmax(1) == label).to(x.dtype)
        return {"loss": functional.nll_loss(log_probabilities, label, reduction="none"), "accuracy": accuracy}


def noised(schedule: Schedule, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """``x_t = alpha x + sigma eps``."""
    alpha, sigma = schedule(t)
    return combine(alpha, x, sigma, eps)


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
