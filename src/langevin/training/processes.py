"""Which of a run's processes this is."""

from lightning.pytorch.utilities import rank_zero_only


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks; known from the launcher's variables, before any trainer."""
    return getattr(rank_zero_only, "rank", 0) == 0
