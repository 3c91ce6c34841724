"""What the network's output means.

Every parameterization is one row ``F = a x + b eps`` beside the row ``x_t = alpha x + sigma eps``; one 2x2 inverse
gives x and eps back (`langevin.diffusion.denoiser`). A new one is a class with `mix`.
"""

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from langevin.diffusion.level import Level, broadcast_to
from langevin.diffusion.reverse import posterior_weights, transition
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import UserError


class Parameterization(ABC):
    """The network's output as a mixture ``F = a x + b eps``, and how its input is presented to it."""

    @abstractmethod
    def mix(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients (a, b) at the times `t`, each of the shape of `t`, float64."""

    def c_in(self, level: Level) -> Tensor:
        """What x_t is multiplied by on its way into the network: to unit variance, for data of unit variance."""
        return (level.alpha.square() + level.sigma.square()).rsqrt()

    def c_noise(self, schedule: Schedule, t: Tensor) -> Tensor:
        """The number that conditions the network on the noise level: the time on the scale 0..1000."""
        return schedule.clock(t)

    def precondition_input(self, schedule: Schedule, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """What a network is shown: `c_in` times x_t (B, ...), and `c_noise` (B,) for times of shape () or (B,).

        Times (B, N) are those of the N parts of each sample (B, N, ...), such as its frames; so is `c_noise` then.
        """
        c_noise = broadcast_to(self.c_noise(schedule, t), x_t)
        c_noise = c_noise.reshape(t.shape) if t.ndim > 1 else c_noise.reshape(-1).expand(len(x_t))
        return broadcast_to(self.c_in(schedule(t)), x_t) * x_t, c_noise

    def check(self, schedule: Schedule) -> None:
        """Check that x can be recovered from x_t and the network's output at the schedule's last time.

        Raises:
            UserError: when it cannot. A prediction of eps, for one, does not determine x where no signal is left, nor
                does one of the velocity where the schedule comes to rest.
        """
        t = torch.tensor(schedule.t_max, dtype=torch.float64)
        level, (a, b) = schedule(t), self.mix(schedule, t)
        determinant = (level.alpha * b - level.sigma * a).abs()
        # An error of the network's output is that of x divided by it: beyond this, no digit of x would be right.
        if not (determinant > 1e-8 and determinant.isfinite()):
            raise UserError(
                "cannot recover the image at the schedule's last time, where its output carries almost no information "
                "about it; take x or v, or a schedule that ends otherwise"
            )


class Eps(Parameterization):
    """The network predicts the noise: (a, b) = (0, 1). Source: DDPM (Ho et al. 2020), equation 12."""

    def mix(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parameterization`."""
        return torch.zeros_like(t), torch.ones_like(t)


class X(Parameterization):
    """The network predicts the clean image: (a, b) = (1, 0). Source: DDPM (Ho et al. 2020), section 3.2."""

    def mix(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parameterization`."""
        return torch.ones_like(t), torch.zeros_like(t)


class V(Parameterization):
    """The network predicts ``v = alpha eps - sigma x``. Source: progressive distillation (Salimans and Ho 2022)."""

    def mix(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parameterization`."""
        alpha, sigma = schedule(t)
        return -sigma, alpha


class Score(Parameterization):
    """The network predicts the score, the gradient of log q(x_t): ``F = -eps / sigma``.

    Source: Score-SDE (Song et al. 2021), equation 7.
    """

    def mix(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parameterization`."""
        return torch.zeros_like(t), -1 / schedule(t).sigma


class FlowParameterization(Parameterization):
    """The network predicts the velocity dx_t/dt: (a, b) = (alpha', sigma'), with T steps taken as one unit of time.

    Source: flow matching (Lipman et al. 2023), equation 9, on any schedule.
    """

    def mix(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parameterization`."""
        alpha, sigma = schedule.rate(t)
        unit = 1 if schedule.num_steps is None else schedule.num_steps
        return unit * alpha, unit * sigma


class PosteriorMean(Parameterization):
    """The network predicts the mean of q(x_{t-1} | x_t, x), "mu-tilde". Source: DDPM (Ho et al. 2020), equation 8.

    Args:
        relative: the network predicts how far the mean is from ``sqrt(1 - beta) x_t``, in units of ``sqrt(beta)``;
            so the first diffusion models did (Sohl-Dickstein et al. 2015, released code).
    """

    def __init__(self, relative: bool = False) -> None:
        self.relative = relative

    def mix(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parameterization`."""
        s = t - 1
        of_x, of_x_t = posterior_weights(schedule, s, t)
        scale = torch.ones_like(t)
        if self.relative:
            step = transition(schedule, s, t)
            of_x_t, scale = of_x_t - step.alpha, torch.sqrt(step.variance)
        alpha, sigma = schedule(t)
        return (of_x + of_x_t * alpha) / scale, of_x_t * sigma / scale

    def check(self, schedule: Schedule) -> None:
        """See `Parameterization`.

        Raises:
            UserError: when the schedule has no steps between which there could be a mean.
        """
        if schedule.num_steps is None:
            raise UserError(
                "predicts the mean of a discrete step, but the schedule is continuous; "
                "set schedule.num_steps, or take another parameterization"
            )
        super().check(schedule)


class EDMParameterization(Parameterization):
    """EDM's preconditioning: ``x = c_skip x_t + c_out F``, for unit variance of input and target at every level.

    With ``n^2 = sigma^2 + alpha^2 sigma_data^2``: c_in = 1 / n, c_skip = alpha sigma_data^2 / n^2,
    c_out = sigma sigma_data / n, c_noise = log(sigma / alpha) / 4. Source: EDM (Karras et al. 2022), table 1, which has
    alpha = 1; the rest follows from its equation 7 for x_t / alpha.

    Args:
        sigma_data: the standard deviation of the data in [-1, 1]; 0.5 is usual.
    """

    def __init__(self, sigma_data: Annotated[float, Gt(0)] = 0.5) -> None:
        self.sigma_data = sigma_data

    def mix(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parameterization`."""
        level = schedule(t)
        c_in = self.c_in(level)
        c_skip = level.alpha * self.sigma_data**2 * c_in.square()
        c_out = level.sigma * self.sigma_data * c_in
        return level.sigma.square() * c_in.square() / c_out, -c_skip * level.sigma / c_out

    def c_in(self, level: Level) -> Tensor:
        """See `Parameterization`; for data of standard deviation `sigma_data`."""
        return (level.sigma.square() + (level.alpha * self.sigma_data).square()).rsqrt()

    def c_noise(self, schedule: Schedule, t: Tensor) -> Tensor:
        """See `Parameterization`: ``log(sigma / alpha) / 4``."""
        return -schedule(t).log_snr / 8

    def check(self, schedule: Schedule) -> None:
        """See `Parameterization`.

        Raises:
            UserError: when no signal is left at the schedule's last time, so that c_noise would be infinite.
        """
        super().check(schedule)
        if schedule(torch.tensor(schedule.t_max, dtype=torch.float64)).alpha == 0:
            raise UserError(
                "gives the network log(sigma / alpha), which is infinite at the schedule's last time, where no signal "
                "is left; take x, v or flow, or a schedule that keeps a trace of signal"
            )
