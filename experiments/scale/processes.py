"""What does one of many processes draw, read and compute for its own 32 images of a training step?

Usage: ``python -m experiments.scale.processes SHARDS``: a folder of tars made by `images`, whose index may be there

The last of 1 to 256 processes is run, alone: what it has from others, their losses and gradients, is left out.
"""

import os
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from experiments.scale.images import SIZE
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from langevin.batches import Batches
from langevin.data.block_module import BlockDataModule
from langevin.data.stream import SampleStream
from langevin.data.tar_shards import TarShards
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import BatchDraws, SampleDraws
from langevin.diffusion.objective import Simple
from langevin.diffusion.parameterization import X
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.time_sampler import UniformTimes
from langevin.diffusion.weighting import UnitX

OWN, STEPS, IMAGES = 32, 40, 1_000_000
WORLDS = (1, 4, 16, 64, 256)


class Identity(nn.Module):
    """A network that costs nothing: what remains is what the steps around it cost."""

    conditions: tuple[str, ...] = ()
    condition = None

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """The input."""
        return x


class Allocated(TorchDispatchMode):
    """Adds up the bytes of all memory that is allocated within."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):  # kept, so that no other takes its place
                self.storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return result


def milliseconds(work: Callable[[], Any], number: int = STEPS) -> float:
    """CPU time of a step, the mean of some."""
    work()
    start = time.process_time()
    for _ in range(number):
        work()
    return (time.process_time() - start) / number * 1e3


def read() -> int:
    """Bytes that this process has read so far, from the disk or the system's cache of it."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


def main() -> None:
    """Print a line of CSV for each number of processes."""
    torch.set_num_threads(1)
    objective, denoiser = Simple(UniformTimes(), UnitX()), Denoiser(Identity(), GaussianProcess(Linear(), X()))
    x = torch.zeros(OWN, 3, SIZE, SIZE)
    print("processes,order ms,blocks ms,bytes read,loss ms,bytes allocated,evaluation ms")
    for world in WORLDS:
        options = {"rank": world - 1, "world_size": world, "flip": True}
        cached = iter(SampleStream(IMAGES, OWN * world, **cast("Any", options)))
        order = milliseconds(lambda cached=cached: next(cached))

        module = BlockDataModule(TarShards(sys.argv[1], SIZE), OWN * world, num_workers=0)
        module.trainer = cast("Any", SimpleNamespace(global_rank=world - 1, world_size=world, global_step=0))
        module.prepare_data()
        batches = iter(module.train_dataloader())
        next(batches)
        before = read()
        blocks = milliseconds(lambda batches=batches: next(batches))
        bytes_read = (read() - before) / (STEPS + 1)

        def loss(world: int = world) -> None:
            objective(denoiser, {"x": x}, BatchDraws(5, x, OWN * world, world - 1, world))

        with Allocated() as memory:
            loss()
        allocated = sum(storage.nbytes() for storage in memory.storages.values())

        def evaluation(world: int = world) -> None:
            for indices in islice(Batches(OWN * world, OWN, world - 1, world), 1):
                SampleDraws(0, indices, x.shape[1:]).normal()

        values = [order, blocks, bytes_read, milliseconds(loss), allocated, milliseconds(evaluation)]
        print(f"{world}," + ",".join(f"{value:.4g}" for value in values), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
