"""The sigmoid schedule in terms of logSNR."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from langevin.diffusion.schedules.curve import LogSNRSchedule
from langevin.errors import OptionError


class SigmoidLogSNR(LogSNRSchedule):
    """logSNR falls from `log_snr_max` to `log_snr_min` along a logistic curve.

    ``logSNR = min + (max - min) (S(end / tau) - S(v / tau)) / (S(end / tau) - S(start / tau))`` with v running from
    `start` to `end`. The field has no one meaning for the name; this is `Sigmoid`'s curve with logSNR in gamma's place.

    Args:
        num_steps: T; None for continuous time.
        start: where on the sigmoid noise begins.
        end: where it ends.
        tau: the temperature.
        log_snr_max: logSNR at the data.
        log_snr_min: logSNR in the end.

    Raises:
        UserError: when `end` is not beyond `start`, or `log_snr_max` not above `log_snr_min`.
    """

    def __init__(
        self,
        num_steps: Annotated[int, Ge(1), Le(1_000_000)] | None = None,
        start: float = -3.0,
        end: float = 3.0,
        tau: Annotated[float, Gt(0)] = 1.0,
        log_snr_max: float = 15.0,
        log_snr_min: float = -15.0,
    ) -> None:
        if end <= start:
            raise OptionError("end", f"is {end}; allowed: above start ({start})")
        if log_snr_max <= log_snr_min:
            raise OptionError("log_snr_max", f"is {log_snr_max}; allowed: above log_snr_min ({log_snr_min})")
        super().__init__(num_steps)
        self.start, self.end, self.tau = start, end, tau
        self.log_snr_min = log_snr_min
        ends = torch.sigmoid(torch.tensor([start, end], dtype=torch.float64) / tau)
        self._last = ends[1]
        self._slope = (log_snr_max - log_snr_min) / (ends[1] - ends[0])

    def _position(self, u: Tensor) -> Tensor:
        return (self.start + u * (self.end - self.start)) / self.tau

    def log_snr(self, u: Tensor) -> Tensor:
        """See `LogSNRSchedule`."""
        return self.log_snr_min + self._slope * (self._last - torch.sigmoid(self._position(u)))

    def log_snr_rate(self, u: Tensor) -> Tensor:
        """See `LogSNRSchedule`."""
        position = self._position(u)
        sigmoid_rate = torch.sigmoid(position) * torch.sigmoid(-position)
        return -self._slope * sigmoid_rate * (self.end - self.start) / self.tau

    def log_snr_inverse(self, log_snr: Tensor) -> Tensor:
        """See `LogSNRSchedule`."""
        position = torch.logit(self._last - (log_snr - self.log_snr_min) / self._slope)
        return (self.tau * position - self.start) / (self.end - self.start)
