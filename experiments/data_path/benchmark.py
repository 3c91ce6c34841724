"""How fast does a warm cache give CIFAR-10 batches to one process on one core?

Usage: ``python experiments/data_path/benchmark.py PATH_OF_CIFAR10_TRAINING_IMAGES [BATCH_SIZE]``
"""

import os
import sys
import time
from itertools import islice

import torch

from langevin.data.cifar10 import CIFAR10
from langevin.data.module import DataModule, preprocess


def main() -> None:
    """Print images/s of the loader alone, and of the loader with the preprocessing to floats."""
    path, batch_size = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 128
    start = time.perf_counter()
    module = DataModule(CIFAR10(path=path), batch_size)
    module.prepare_data()
    print(f"prepare_data: {time.perf_counter() - start:.2f} s")

    # After the cache, which may be built on all cores.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    loader = iter(module.train_dataloader())
    epoch = len(module.train_set) // batch_size
    for _ in islice(loader, epoch):  # brings the file into memory
        pass
    for title, use in (("loader", None), ("loader + preprocess", preprocess)):
        start = time.perf_counter()
        for batch in islice(loader, 3 * epoch):
            if use is not None:
                use(batch)
        rate = 3 * epoch * batch_size / (time.perf_counter() - start)
        print(f"{title}: {rate:,.0f} images/s (batch size {batch_size}, one core)")


if __name__ == "__main__":
    main()
