"""Progress bars that can be read in a log file too."""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

SHORTEST, LONGEST = 10.0, 600.0
"""Seconds between two lines of a log file, at least: at first, and in the end."""
SHARE = 1 / 20
"""They grow with the time that has passed: about 60 lines in the first hour, 220 in a day."""


def progress_bar(**options: Any) -> tqdm:
    """A bar of tqdm's on stderr: redrawn on a terminal; in a file, such as a SLURM log, a line now and then.

    Args:
        options: tqdm's own.
    """
    if sys.stderr.isatty():
        return tqdm(**{"file": sys.stderr, "dynamic_ncols": True, "mininterval": 0.2} | options)
    return LogBar(**{"file": Lines(sys.stderr), "mininterval": SHORTEST, "maxinterval": SHORTEST} | options)


class LogBar(tqdm):
    """Draws itself ever more rarely."""

    mininterval: float
    maxinterval: float

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw a line, and choose when to draw the next."""
        super().display(msg, pos)
        passed = time.time() - getattr(self, "start_t", time.time())
        self.mininterval = self.maxinterval = max(self.mininterval, min(LONGEST, SHARE * passed))


class Lines:
    """A file that takes what tqdm would draw on a terminal, and has each state of the bar as a line of its own.

    Args:
        file: where the lines go.
    """

    encoding = "ascii"  # has tqdm draw the bar with "#"

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write a line; nothing for what only clears a line of a terminal or moves between its lines."""
        if line := text.replace("\x1b[A", "").strip():
            self.file.write(f"{line}\n")

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()
