"""Files that are complete or absent."""

import errno
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that `path` holds either its old content or the new one, never a part.

    Args:
        path: where the file goes; missing parent folders are made.
        write: is given the open binary file to fill.

    Raises:
        OSError: when the disk is full or the folder cannot be written; `path` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile's: its files are readable to their owner only, whatever the umask.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def require_regular(path: Path) -> Path:
    """Return a path if it is absent or a regular file: reading a pipe or a device might never end.

    Raises:
        OSError: when it is anything else.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no ordinary file", str(path))
    return path


def readable(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON."""
    write_atomically(path, lambda file: file.write(json.dumps(value, indent=2).encode() + b"\n"))
