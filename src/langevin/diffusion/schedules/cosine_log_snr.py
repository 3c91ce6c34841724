"""The cosine schedule in terms of logSNR."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from langevin.diffusion.schedules.curve import LogSNRSchedule
from langevin.errors import OptionError


class CosineLogSNR(LogSNRSchedule):
    """``logSNR = -2 log tan(pi/2 v)``, v running so that the ends are `log_snr_max` and `log_snr_min`.

    Source: Kingma and Gao 2023, table 1; simple diffusion (Hoogeboom et al. 2023), appendix A.

    Args:
        num_steps: T; None for continuous time.
        log_snr_max: logSNR at the data.
        log_snr_min: logSNR in the end.

    Raises:
        UserError: when `log_snr_max` is not above `log_snr_min`.
    """

    def __init__(
        self,
        num_steps: Annotated[int, Ge(1), Le(1_000_000)] | None = None,
        log_snr_max: float = 15.0,
        log_snr_min: float = -15.0,
    ) -> None:
        if log_snr_max <= log_snr_min:
            raise OptionError("log_snr_max", f"is {log_snr_max}; allowed: above log_snr_min ({log_snr_min})")
        super().__init__(num_steps)
        self._first, self._last = math.atan(math.exp(-log_snr_max / 2)), math.atan(math.exp(-log_snr_min / 2))

    def _angle(self, u: Tensor) -> Tensor:
        return self._first + u * (self._last - self._first)

    def log_snr(self, u: Tensor) -> Tensor:
        """See `LogSNRSchedule`."""
        return -2 * torch.log(torch.tan(self._angle(u)))

    def log_snr_rate(self, u: Tensor) -> Tensor:
        """See `LogSNRSchedule`."""
        return -4 * (self._last - self._first) / torch.sin(2 * self._angle(u))

    def log_snr_inverse(self, log_snr: Tensor) -> Tensor:
        """See `LogSNRSchedule`."""
        return (torch.atan(torch.exp(-log_snr / 2)) - self._first) / (self._last - self._first)
