"""Loggers to a service, whose failures never stop a run."""

import warnings
from collections.abc import Callable
from typing import Any, ClassVar


class Guarded:
    """A logger that reports its first failure, and lets the run continue.

    Attributes:
        service: what the user calls it.
    """

    service: ClassVar[str]
    _failed: bool = False

    def _guarded(self, log: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `log` returns; None where it fails, whatever the service or the network came up with."""
        try:
            return log(*args, **kwargs)
        except Exception as error:
            if not self._failed:
                text = f"{self.service} failed ({error}); the run continues, metrics.csv has the numbers"
                warnings.warn(text, stacklevel=2)
            self._failed = True
            return None
