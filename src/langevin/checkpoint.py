"""Checkpoints on disk, read without Lightning: safely, and with a plain word about those that cannot be."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from langevin.errors import UserError

RECORD = "langevin"
"""The entry that holds what a model is rebuilt from."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a Langevin checkpoint onto the CPU, unpickling nothing but tensors and plain values.

    Raises:
        UserError: when the file is missing, damaged, or not Langevin's.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; give a run's folder or a .ckpt file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what a damaged pickle raises may be anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"checkpoint {path} cannot be read: it is damaged or no checkpoint at all ({reason})"
        ) from error
    if not isinstance(checkpoint, Mapping) or RECORD not in checkpoint:
        raise UserError(f"checkpoint {path} was not written by Langevin: it holds no '{RECORD}' record")
    return dict(checkpoint)


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
    path = place / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise UserError(f"{option}={place} is a folder without checkpoints/last.ckpt: no run has saved there yet")
    return path


def folder_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint belongs to, or the one that the file was put into."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
