"""What noise is: how data becomes noise, and what a network's output says about a noisy sample."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from langevin.diffusion.draws import Draws
from langevin.diffusion.level import Level, broadcast_to, combine
from langevin.diffusion.parameterization import Parameterization
from langevin.diffusion.reverse import transition
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.variance import FixedSmall, Variance


class Prediction(NamedTuple):
    """The prediction for a noisy sample; all of the shape of x (B, ...).

    Attributes:
        x: the clean sample.
        eps: the noise, so that ``x_t = alpha x + sigma eps``.
        raw: the network's output F in its own parameterization.
        variance: the network's further channels, for a learned variance; None without.
        mean_gradient: what guidance moves a reverse step's mean by, in units of the step's variance; None: nothing.
    """

    x: Tensor
    eps: Tensor
    raw: Tensor
    variance: Tensor | None
    mean_gradient: Tensor | None = None


class Noised(NamedTuple):
    """Samples with noise, ``x_t = alpha x + sigma eps``, and the noise; both (B, ...)."""

    x_t: Tensor
    eps: Tensor


class Process(ABC):
    """A corruption process and its reverse: the only code that knows what noise is.

    Samplers, objectives and networks of one process fit each other; all else does not depend on it.

    Attributes:
        schedule: how noise grows with time.
    """

    schedule: Schedule

    def check(self) -> None:
        """Check that data can be recovered from a network's output.

        Raises:
            UserError: when it cannot, at some time of the schedule.
        """

    @abstractmethod
    def output_channels(self, channels: int) -> int:
        """How many channels a network puts out for samples of so many."""

    @abstractmethod
    def corrupt(self, x: Tensor, t: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Draw x_t given x.

        Args:
            x: clean samples (B, ...).
            t: times () or (B,), float64 on the CPU.
            draws: the samples' random numbers.

        Returns:
            x_t, and what was drawn, which objectives may need.
        """

    def renoise(self, x_s: Tensor, s: Tensor, t: Tensor, draws: Draws) -> Tensor:
        """Draw x_t given x_s (B, ...), for times s < t, both (): only for walks that go back."""
        raise NotImplementedError(f"{type(self).__name__} cannot go back to more noise")

    @abstractmethod
    def prior(self, t: Tensor, draws: Draws) -> Tensor:
        """Draw samples (B, ...) of nothing but noise, at the time `t` (), from which sampling starts."""

    @abstractmethod
    def present(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """What a network is shown: x_t as it takes it, and the number (B,) that encodes the time."""

    @abstractmethod
    def predict(self, output: Tensor, x_t: Tensor, t: Tensor) -> Prediction:
        """What a network's output says about `x_t` at `t`."""

    @abstractmethod
    def finish(self, x_t: Tensor, t: Tensor, draws: Draws) -> Tensor:
        """The data x from the samples at a walk's last time `t`."""


class GaussianProcess(Process):
    """Gaussian noise on real numbers: ``x_t = alpha x + sigma eps``.

    Args:
        schedule: how noise grows with time.
        parameterization: what a network's output means.
        variance: the variance of a reverse step; a classifier of noisy images has no use for it.
    """

    def __init__(
        self, schedule: Schedule, parameterization: Parameterization, variance: Variance | None = None
    ) -> None:
        self.schedule = schedule
        self.parameterization = parameterization
        self.variance = FixedSmall() if variance is None else variance

    def check(self) -> None:
        """See `Process`."""
        self.parameterization.check(self.schedule)

    def output_channels(self, channels: int) -> int:
        """See `Process`; a learned variance takes further channels."""
        return self.variance.channels(channels)

    def mix(self, x: Tensor, eps: Tensor, t: Tensor) -> Noised:
        """``x_t = alpha x + sigma eps`` for samples and noise (B, ...) at times () or (B,)."""
        alpha, sigma = self.schedule(t)
        return Noised(combine(alpha, x, sigma, eps), eps)

    def corrupt(self, x: Tensor, t: Tensor, draws: Draws) -> Noised:
        """See `Process`."""
        return self.mix(x, draws.normal(), t)

    def renoise(self, x_s: Tensor, s: Tensor, t: Tensor, draws: Draws) -> Tensor:
        """See `Process`."""
        step = transition(self.schedule, s, t)
        return combine(step.alpha, x_s, step.variance.sqrt(), draws.normal())

    def prior(self, t: Tensor, draws: Draws) -> Tensor:
        """See `Process`: normal noise of the standard deviation `prior_std`."""
        return draws.normal() * self.prior_std(t)

    def prior_std(self, t: Tensor) -> float:
        """The standard deviation of the noise that replaces samples at the time `t` (), at which a walk begins.

        It is the schedule's own, but where noise grows without bound and the walk begins below the schedule's last
        time.
        """
        schedule = self.schedule
        noise, last = t.new_tensor(1.0), t.new_tensor(schedule.t_max)
        if schedule.norm(Level(0 * noise, noise)) > 0:
            return schedule.prior_std
        return schedule.prior_std * float(schedule(t).sigma / schedule(last).sigma)

    def present(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Process`."""
        return self.parameterization.precondition_input(self.schedule, x_t, t)

    def predict(self, output: Tensor, x_t: Tensor, t: Tensor) -> Prediction:
        """See `Process`; in the precision of `x_t`. The channels beyond those of `x_t` are the variance's."""
        output = output.to(x_t.dtype)
        raw, variance = output, None
        if output.shape[1] != x_t.shape[1]:
            raw, variance = output.split([x_t.shape[1], output.shape[1] - x_t.shape[1]], dim=1)
        return self.solve(raw, variance, x_t, t)

    def solve(self, raw: Tensor, variance: Tensor | None, x_t: Tensor, t: Tensor) -> Prediction:
        """The prediction from an output F (B, ...) in this process's parameterization, for `x_t` at `t`."""
        level, (a, b) = self.schedule(t), self.parameterization.mix(self.schedule, t)
        determinant = level.alpha * b - level.sigma * a
        return Prediction(
            x=combine(b / determinant, x_t, -level.sigma / determinant, raw),
            eps=combine(-a / determinant, x_t, level.alpha / determinant, raw),
            raw=raw,
            variance=variance,
        )

    def finish(self, x_t: Tensor, t: Tensor, draws: Draws) -> Tensor:
        """See `Process`: where the walk ends before the data, what is left of the noise counts as data.

        A schedule may scale the samples themselves, then alpha is not 1 at the data.
        """
        return x_t / broadcast_to(self.schedule(torch.zeros_like(t)).alpha, x_t)


def eps_from_x(x: Tensor, x_t: Tensor, level: Level) -> Tensor:
    """The noise that goes with the sample `x` in `x_t`: ``(x_t - alpha x) / sigma``."""
    return combine(1 / level.sigma, x_t, -level.alpha / level.sigma, x)
