"""How fast do tar shards give batches, read while training (loader=blocks) and from a cache (loader=default)?

Usage: ``python experiments/data_path/blocks.py make FOLDER NUMBER`` writes JPEG images of 64x64, 10,000 a shard, and
``python experiments/data_path/blocks.py blocks|default FOLDER WORKERS`` measures them.
"""

import io
import multiprocessing
import re
import sys
import tarfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from langevin.data.block_module import BlockDataModule
from langevin.data.module import DataModule
from langevin.data.tar_shards import TarShards

SIZE, SHARD, BATCH, SECONDS = 64, 10_000, 256, 20


def make(folder: Path, number: int) -> None:
    """Write shards of smooth random images of ten classes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for first in range(0, number, SHARD):
        with tarfile.open(folder / f"{first // SHARD:05}.tar", "w") as tar:
            for row in range(first, min(first + SHARD, number)):
                noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                file = io.BytesIO()
                noise.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
                for suffix, content in (("jpg", file.getvalue()), ("cls", str(row % 10).encode())):
                    info = tarfile.TarInfo(f"{row:08}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def peak(process: int | str) -> float:
    """The most memory that a process has held, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    """Make the shards, or print the time to open them, images/s and memory."""
    loader, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if loader == "make":
        make(folder, number)
        return
    torch.set_num_threads(1)
    of_name: dict[str, type[DataModule]] = {"blocks": BlockDataModule, "default": DataModule}
    start = time.perf_counter()
    module = of_name[loader](TarShards(str(folder), SIZE), BATCH, num_workers=number)
    module.prepare_data()
    digest = module.content.sha256[:8]
    print(f"{loader}: {module.number:,} images ({digest}) opened in {time.perf_counter() - start:.2f} s", flush=True)
    start = time.perf_counter()
    batches = iter(module.train_dataloader())
    next(batches)
    print(f"first batch after {time.perf_counter() - start:.2f} s", flush=True)
    for _ in islice(batches, 20):
        pass
    start, given = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        given += len(next(batches)["x"])
    print(f"{given / (time.perf_counter() - start):,.0f} images/s with {number} workers (batch size {BATCH})")
    workers = [f"{peak(each.pid or 'self'):,.0f}" for each in multiprocessing.active_children()]
    print(f"at most {peak('self'):,.0f} MiB in the main process; in workers: {', '.join(workers) or 'none'}")


if __name__ == "__main__":
    main()
