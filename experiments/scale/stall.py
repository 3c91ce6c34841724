"""Does a batch of loader=blocks wait when the window moves on to other shards?

Usage: ``python -m experiments.scale.stall SHARDS WINDOW``: the shards are those of `images`; the system forgets first
what it holds of their files, so they come from the disk.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from experiments.scale.images import BATCH, SHARD, SIZE

from langevin.data.block_module import BlockDataModule
from langevin.data.tar_shards import TarShards

WINDOWS = 3


def main() -> None:
    """Print the seconds of the first batch, of the median one, and of those in which a window begins."""
    folder, window = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    for path in folder.glob("*.tar"):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    module = BlockDataModule(TarShards(str(folder), SIZE), BATCH, window=window, num_workers=0)
    module.prepare_data()
    batches, seconds = iter(module.train_dataloader()), list[float]()
    for _ in range(WINDOWS * window * SHARD // BATCH):
        start = time.perf_counter()
        next(batches)
        seconds.append(time.perf_counter() - start)
    starts = [number * window * SHARD // BATCH for number in range(WINDOWS)]
    print(
        f"window {window}: median {np.median(seconds):.3f} s, where a window begins "
        + ", ".join(f"{seconds[at]:.3f}" for at in starts)
        + f" s, {sum(sorted(seconds)[-20:]):.2f} s in the 20 longest of {len(seconds)}"
    )


if __name__ == "__main__":
    main()
