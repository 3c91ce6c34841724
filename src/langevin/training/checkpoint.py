"""Lightning checkpoint I/O: a file is complete or absent, and safe to open."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from langevin.checkpoint import read_checkpoint
from langevin.errors import UserError
from langevin.files import write_atomically


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
                f"the disk and rerun the same command to resume from it"
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """See `read_checkpoint`."""
        return read_checkpoint(Path(path))
