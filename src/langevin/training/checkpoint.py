"""Checkpoints on disk: whole or absent, and safe to open."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from langevin.errors import UserError
from langevin.images import write_atomically

RECORD = "langevin"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Saves so that a checkpoint is either the old one or the new one, and loads tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save.

        Raises:
            UserError: when it cannot be written; the file that was there is then intact.
        """
        try:
            write_atomically(Path(path), lambda file: torch.save(checkpoint, file))
        except (OSError, RuntimeError) as error:  # torch reports a failed write as either
            raise UserError(
                f"could not save {path}: {error}. The earlier checkpoint, if there was one, is intact; make room on "
                f"the disk and say the same command again to continue from it"
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """See `read_checkpoint`."""
        return read_checkpoint(Path(path))


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


def find_checkpoint(place: Path) -> Path:
    """The checkpoint meant by a run's folder (its `checkpoints/last.ckpt`) or by a file.

    Raises:
        UserError: when there is none.
    """
    if not place.exists():
        raise UserError(f"checkpoint={place} does not exist; give a run's folder or a .ckpt file")
    if place.is_file():
        return place
    path = place / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise UserError(f"checkpoint={place} is a folder without checkpoints/last.ckpt: no run has saved there yet")
    return path


def folder_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint belongs to, or the one that the file was put into."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
