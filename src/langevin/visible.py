"""What is printed: untrusted text without control characters that would affect a terminal, and pipes that close."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

READER_LEFT = 141
"""The exit status of a program whose output nobody reads any more: what a shell calls SIGPIPE."""


@contextmanager
def ending_with_reader() -> Iterator[None]:
    """End the process silently if the reader of what it prints has gone, as in ``langevin runs | head``.

    Only for what does no more than print: a training is not to end because nobody looks.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # it has been closed from the start
                sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it exits
        sys.exit(READER_LEFT)


def visible(text: str) -> str:
    r"""A text on one line: what is not printable stands as `repr` writes it, such as `\x1b`.

    That is control characters (C0, C1 and line ends), those that turn the direction of writing or have no width, and
    the bytes of a file name that are no text. Letters of any language, spaces and backslashes stay as they are.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def visible_lines(text: str) -> str:
    """The same of a text of several lines."""
    return "\n".join(map(visible, text.split("\n")))
