"""Files of weights: a user's own, or published ones by way of torch hub's cache."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import torch

from langevin.errors import UserError

CONNECTION_SECONDS = 5.0
"""How long a download waits for an answer: short, so that a machine without internet reports it at once."""


class Published(NamedTuple):
    """Weights that are to be had on the internet.

    Attributes:
        url: where.
        file_name: what the file is called in torch hub's cache.
        sha256: how the file's sha256 begins.
    """

    url: str
    file_name: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the file lies once it is downloaded."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file_name


@contextmanager
def short_wait() -> Iterator[None]:
    """Give up on a silent network after `CONNECTION_SECONDS`; torch hub offers no timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECTION_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def find_weights(weights: str | None, published: Published, otherwise: str) -> Path:
    """The file that ``features.weights`` means: a path, or None for what is published, downloaded if it is not cached.

    Args:
        weights: the option's value.
        published: what None means.
        otherwise: what else can be done without internet, for the message.

    Raises:
        UserError: when it is not cached and cannot be downloaded.
    """
    if weights is not None:
        return Path(weights).expanduser()
    path = published.path
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with short_wait():
            torch.hub.download_url_to_file(published.url, str(path), hash_prefix=published.sha256)
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: another sha256
        raise UserError(
            f"features.weights=null: the weights are not cached at {path} and could not be downloaded ({error}): give "
            f"features.weights=PATH (a copy of {published.url}), {otherwise}"
        ) from error
    return path


def read_file(path: Path, option: str, wanted: str) -> bytes:
    """Read a file whole.

    Args:
        path: of the file.
        option: what names it, for the message, such as ``features.weights=FILE``.
        wanted: what the option allows, for the message.

    Raises:
        UserError: when it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{option}: cannot be read ({error.strerror}): give {wanted}") from error
