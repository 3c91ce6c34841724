"""From a network's output to a prediction of the image and of the noise."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from langevin.diffusion.level import Level, combine
from langevin.diffusion.parameterization import Parameterization
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.variance import Variance

Condition = Mapping[str, Tensor]


class Prediction(NamedTuple):
    """The prediction for a noisy image; all of shape (B, C, H, W).

    Attributes:
        x: the clean image.
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


class Denoise(Protocol):
    """Anything that can be sampled from: a `Denoiser`, or guidance around one."""

    schedule: Schedule
    variance: Variance

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Prediction:
        """See `Denoiser.forward`."""


class Denoiser(nn.Module):
    """A network with the meaning of its output: the only caller of a network.

    Args:
        network: maps (x, c_noise, cond) to a tensor of ``variance.channels(C)`` channels.
        schedule: how noise grows with time.
        parameterization: what the network's output means.
        variance: the variance of a reverse step.

    Raises:
        UserError: when the parameterization does not suit the schedule.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule, parameterization: Parameterization, variance: Variance
    ) -> None:
        super().__init__()
        parameterization.check(schedule)
        self.network = network
        self.schedule = schedule
        self.parameterization = parameterization
        self.variance = variance

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Prediction:
        """Predict the image and the noise in `x_t`.

        Args:
            x_t: noisy images (B, C, H, W).
            t: times in (0, t_max], float64 on the CPU, of shape () or (B,).
            cond: what the network is conditioned on, such as {"label": int64 (B,)}.
        """
        output = self.network(*self.parameterization.precondition_input(self.schedule, x_t, t), cond).to(x_t.dtype)
        raw, variance = output, None
        if output.shape[1] != x_t.shape[1]:
            raw, variance = output.split([x_t.shape[1], output.shape[1] - x_t.shape[1]], dim=1)
        return self.solve(raw, variance, x_t, t)

    def solve(self, raw: Tensor, variance: Tensor | None, x_t: Tensor, t: Tensor) -> Prediction:
        """The prediction from a network's output F (B, C, H, W), in this model's parameterization, for `x_t` at `t`."""
        level, (a, b) = self.schedule(t), self.parameterization.mix(self.schedule, t)
        determinant = level.alpha * b - level.sigma * a
        return Prediction(
            x=combine(b / determinant, x_t, -level.sigma / determinant, raw),
            eps=combine(-a / determinant, x_t, level.alpha / determinant, raw),
            raw=raw,
            variance=variance,
        )

    def with_network(self, network: nn.Module) -> "Denoiser":
        """The same model with another network, such as one with EMA weights."""
        return Denoiser(network, self.schedule, self.parameterization, self.variance)

    def null_condition(self, cond: Condition) -> Condition:
        """The null condition, of the same batch size: what guidance compares with."""
        null: Callable[[Condition], Condition] = self.network.null_condition  # type: ignore[assignment]
        return null(cond)

    def drop(self, cond: Condition, draw: Callable[[], Tensor]) -> Condition:
        """`cond` after condition dropout, for training; `draw` gives uniform numbers (B,), others at every call."""
        drop: Callable[[Condition, Callable[[], Tensor]], Condition] = self.network.drop  # type: ignore[assignment]
        return drop(cond, draw)


def eps_from_x(x: Tensor, x_t: Tensor, level: Level) -> Tensor:
    """The noise that goes with the image `x` in `x_t`: ``(x_t - alpha x) / sigma``."""
    return combine(1 / level.sigma, x_t, -level.alpha / level.sigma, x)
