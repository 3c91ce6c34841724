"""The processes of a command: which of them this is, and how the others are started.

Lightning takes seconds to import, so that a command of a single process starts without it.
"""

import os
import sys
import warnings
from typing import TYPE_CHECKING, Protocol

from langevin.errors import UserError

if TYPE_CHECKING:
    import torch

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""The variables by which launchers number the processes, in the order in which Lightning reads them."""
LAUNCHED = ("WORLD_SIZE", "LOCAL_RANK", "SLURM_NTASKS")
"""The variables by which a launcher shows that it may have started several processes."""


class Processes(Protocol):
    """What a command knows of its processes: `lightning.fabric.Fabric`, or `SingleProcess`.

    Attributes:
        device: that of this process.
        global_rank: the number of this process, from 0.
        world_size: the number of processes.
    """

    @property
    def device(self) -> "torch.device": ...  # noqa: D102
    @property
    def global_rank(self) -> int: ...  # noqa: D102
    @property
    def world_size(self) -> int: ...  # noqa: D102
    def barrier(self, name: str | None = None) -> None:
        """Wait for the other processes."""


class SingleProcess:
    """A command's only process.

    Args:
        device: to compute on.
    """

    global_rank = 0
    world_size = 1

    def __init__(self, device: "torch.device") -> None:
        self.device = device

    def barrier(self, name: str | None = None) -> None:
        """See `Processes`: there is nobody to wait for."""


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks; known from the launcher's variables, before any trainer."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return bool(distributed.get_rank() == 0)
    return next((int(os.environ[name]) for name in RANKS if name in os.environ), 0) == 0


def launch(accelerator: str, devices: int | str) -> Processes:
    """Start this command's other processes, if it has several; each continues from here on its own device.

    Args:
        accelerator: "auto", "cpu" or another of Lightning's.
        devices: the number of processes, each on a device of its own; or what else Lightning takes.

    Raises:
        UserError: when the machine does not have the requested devices.
    """
    import torch

    is_alone = devices == 1 and not any(name in os.environ for name in LAUNCHED)
    if is_alone and accelerator == "auto" and torch.cuda.is_available():
        return SingleProcess(torch.device("cuda", 0))
    if is_alone and (accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available())):
        return SingleProcess(torch.device("cpu"))

    from lightning.fabric import Fabric
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*`srun` command is available")  # Lightning's advice
            fabric = Fabric(accelerator=accelerator, devices=devices)
        fabric.launch()
    except (MisconfigurationException, ValueError, RuntimeError, TypeError) as error:
        raise UserError(f"accelerator={accelerator}, devices={devices}: {error}") from error
    return fabric
