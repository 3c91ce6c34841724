"""Checkpoints on disk, read without Lightning: safely, with a clear error for those that cannot be read."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from langevin.config.migration import migrated
from langevin.errors import UserError
from langevin.visible import visible

LAST = "last.ckpt"
"""The newest checkpoint of a run."""
CHECKPOINT = ".ckpt"
"""What the name of a checkpoint ends with."""
RECORD = "langevin"
"""The entry that holds what a model is rebuilt from."""
DRAWS = "draws"
"""The entry of the version of training's random numbers, `BatchDraws.VERSION`; missing in those of version 1."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a Langevin checkpoint onto the CPU, unpickling nothing but tensors and plain values.

    Raises:
        UserError: when the file is missing, damaged, or not Langevin's.
    """
    import torch  # here, so that looking for checkpoints does not import it

    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; give a run's folder or a .ckpt file")
    if damage := damage_of(path):
        raise UserError(f"checkpoint {path} cannot be read: it is damaged or no checkpoint at all ({damage})")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what a damaged pickle raises may be anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch's own message advises to unpickle it all the same
            reason = "it holds more than tensors and plain values, or not even these"
        raise UserError(
            f"checkpoint {path} cannot be read: it is damaged or no checkpoint at all ({reason})"
        ) from error
    if not isinstance(checkpoint, Mapping) or RECORD not in checkpoint:
        raise UserError(f"checkpoint {path} was not written by Langevin: it holds no '{RECORD}' record")
    return dict(checkpoint) | {RECORD: migrated(checkpoint[RECORD])}


def find_checkpoint(place: Path, option: str = "checkpoint") -> Path:
    """The checkpoint meant by a run's folder (its `checkpoints/last.ckpt`) or by a file.

    Args:
        place: the folder or file.
        option: the option that names it, for messages.

    Raises:
        UserError: when there is none.
    """
    if not place.exists():
        raise UserError(f"{option}={place} does not exist; give a run's folder or a .ckpt file")
    if place.is_file():
        return place
    path = newest_of(place)
    if path is None:
        raise UserError(f"{option}={place} is a folder without checkpoints/last.ckpt: no run has saved there yet")
    return path


def newest_of(run_dir: Path) -> Path | None:
    """The newest intact checkpoint of a run: `last.ckpt`; if that is damaged, an earlier one, with a warning.

    Returns:
        None where the run has not saved.

    Raises:
        UserError: when there are some, and all are damaged.
    """
    kept = last_checkpoints(run_dir / "checkpoints")
    for position, path in enumerate(kept):
        damage = damage_of(path)
        if damage is None:
            if position > 0:
                warnings.warn(visible(f"{kept[0]} is damaged; using {path}, the one before"), stacklevel=2)
            return path
    if kept:
        raise UserError(f"checkpoint {kept[0]} is damaged ({damage_of(kept[0])}), and no intact one is kept before it")
    return None


def last_checkpoints(directory: Path) -> list[Path]:
    """The last checkpoints that are kept: `last.ckpt`, `last-1.ckpt`, ..., the newest first."""
    numbered = {0: directory / LAST}
    for path in directory.glob("last-*.ckpt"):
        if found := re.fullmatch(r"last-(\d+)", path.stem):
            numbered[int(found[1])] = path
    return [numbered[number] for number in sorted(numbered) if numbered[number].is_file()]


def damage_of(path: Path) -> str | None:
    """What is wrong with a file of `torch.save`, by the checksums that it holds; None if nothing is."""
    try:
        status = path.stat()
    except OSError as error:
        return str(error)
    return _damage_of(path, status.st_ino, status.st_size, status.st_mtime_ns)


@cache
def _damage_of(path: Path, *version: int) -> str | None:
    """Found once for each version of a file: a run's checkpoint is looked for first and read then, both with care."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            # torch.save compresses nothing; a small file could unfold to any size.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                return "it is compressed"
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                return "its entries overlap"
            damaged = archive.testzip()
    except Exception as error:  # a damaged archive can raise anything
        return str(error) or type(error).__name__
    return None if damaged is None else f"wrong checksum of {damaged}"


def folder_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint belongs to, or the one that the file was put into."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
