"""Stores snapshots of the EMA weights, of which others are made after training."""

from pathlib import Path

import safetensors.torch
from lightning.pytorch import LightningModule, Trainer

from langevin.errors import UserError
from langevin.files import readable, write_atomically
from langevin.training.callbacks.steps import StepCallback
from langevin.training.ema import EMA
from langevin.training.module import DiffusionModule
from langevin.training.power_ema import SNAPSHOTS, snapshot_of
from langevin.training.shares import full_tensor


class SaveSnapshots(StepCallback):
    """Writes `EMA.snapshot` where it is time; a resumed run writes those after its checkpoint again, the same.

    It comes before the checkpoints' callback and after all that may change a step's weights.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the snapshot of a step.

        Raises:
            UserError: when it cannot be written.
        """
        assert isinstance(pl_module, DiffusionModule)
        ema, step = pl_module.ema, trainer.global_step
        if ema.snapshot_every is None or step % ema.snapshot_every:
            return
        weights = {}
        for name, tensor in ema.snapshot().items():
            gathered = full_tensor(tensor)  # one at a time: all of them need not fit onto a device
            if trainer.is_global_zero:
                weights[name] = gathered.cpu().contiguous()
        if not trainer.is_global_zero:
            return
        # Of several entries of metadata, the order would be another each time.
        content = safetensors.torch.save(weights, {"format": "pt"})
        place = snapshot_of(self.run_dir, step)
        try:
            write_atomically(place, lambda file: file.write(content))
        except OSError as error:
            raise UserError(
                f"could not save {place}: {error}. The run's checkpoint is intact; make room on the disk and rerun the "
                "same command to resume from it"
            ) from error


def room_of(ema: EMA, step: int, max_steps: int) -> str | None:
    """What the snapshots of the rest of a run take, in words; None where it has none."""
    if ema.snapshot_every is None:
        return None
    number = max_steps // ema.snapshot_every - step // ema.snapshot_every
    each = sum(tensor.nbytes for tensor in ema.snapshot().values())
    return f"{SNAPSHOTS}: {number} more, of {readable(each)} each, take {readable(number * each)}"
