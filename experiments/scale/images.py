"""What do 1,000 to 1,000,000 images of 64x64 cost a process: time until the first batch, images/s and memory?

Usage: ``python -m experiments.scale.images make FOLDER NUMBER [KIND ...]`` writes the images as tars, as files or as a
zip; ``python -m experiments.scale.images LOADER KIND FOLDER [NUMBER_OF_WORKERS]`` measures them, with caches in
``$LANGEVIN_CACHE``: the first call makes them, the next ones find them. Then ``python -m experiments.scale.images again
LOADER FOLDER`` prints the CPU seconds until the first batch of tars, the least of four openings.
"""

import io
import re
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

SIZE, SHARD, DISTINCT, BATCH, SECONDS = 64, 10_000, 20_000, 256, 10


def files(number: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of smooth random images, of which every 20,000th is the same, and of their classes."""
    rng, pool = np.random.default_rng(0), list[bytes]()
    for _ in range(min(number, DISTINCT)):
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        file = io.BytesIO()
        noise.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        pool.append(file.getvalue())
    for row in range(number):
        yield f"{row:08}.jpg", pool[row % DISTINCT]


def make(folder: Path, number: int, kinds: list[str]) -> None:
    """Write tars of 10,000 images with their class ids, or a folder or zip of ten class folders."""
    for kind in kinds:
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "tars":
            images = files(number)
            for first in range(0, number, SHARD):
                with tarfile.open(folder / f"{first // SHARD:05}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
                    for row, (name, content) in enumerate(islice(images, SHARD), first):
                        label = str(row % 10).encode()
                        for file, stored in ((name, content), (name.replace("jpg", "cls"), label)):
                            info = tarfile.TarInfo(file)
                            info.size = len(stored)
                            tar.addfile(info, io.BytesIO(stored))
        elif kind == "zip":
            with zipfile.ZipFile(folder / "images.zip", "w") as archive:
                for row, (name, content) in enumerate(files(number)):
                    archive.writestr(f"{row % 10}/{name}", content)
        else:
            for row, (name, content) in enumerate(files(number)):
                (folder / kind / str(row % 10)).mkdir(parents=True, exist_ok=True)
                (folder / kind / str(row % 10) / name).write_bytes(content)


def memory() -> dict[str, float]:
    """MiB of this process: the most that was resident, and now what is its own and what are pages of files."""
    found = dict(re.findall(r"(VmHWM|RssAnon|RssFile):\s+(\d+)", Path("/proc/self/status").read_text()))
    return {name: int(value) / 1024 for name, value in found.items()}


def main() -> None:
    """Make the images, or print what they cost."""
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] or ["tars"])
        return
    again = sys.argv[1] == "again"
    loader, kind, path = (sys.argv[2], "tars", sys.argv[3]) if again else sys.argv[1:4]
    clock, cpu = time.perf_counter(), time.process_time()

    def lap(what: str) -> None:
        nonlocal clock, cpu
        print(f"{what}: {time.perf_counter() - clock:.2f} s ({time.process_time() - cpu:.3f} of CPU)", flush=True)
        clock, cpu = time.perf_counter(), time.process_time()

    import torch

    from langevin.data.block_module import BlockDataModule
    from langevin.data.image_folder import ImageFolder
    from langevin.data.module import DataModule
    from langevin.data.tar_shards import TarShards

    torch.set_num_threads(1)
    lap("imports")
    held = memory()["RssAnon"]
    source = TarShards(path, SIZE) if kind == "tars" else ImageFolder(path, SIZE)
    of_name: dict[str, type[DataModule]] = {"blocks": BlockDataModule, "default": DataModule}
    if again:
        found = []
        for _ in range(4):
            start = time.process_time()
            module = of_name[loader](TarShards(path, SIZE), BATCH, num_workers=0)
            module.prepare_data()
            _ = module.content
            next(iter(module.train_dataloader()))
            found.append(time.process_time() - start)
        print(f"{loader}: {min(found):.3f} s of CPU until the first batch of {module.number:,}")
        return
    module = of_name[loader](source, BATCH, num_workers=int(sys.argv[4]) if len(sys.argv) > 4 else 0)
    module.prepare_data()
    print(f"{module.number:,} images ({module.content.sha256[:8]})")
    lap("opened")
    batches = iter(module.train_dataloader())
    next(batches)
    lap("first batch")
    seconds, rates = [], 0
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS or len(seconds) < 20:
        before = time.perf_counter()
        rates += len(next(batches)["x"])
        seconds.append(time.perf_counter() - before)
    print(
        f"{rates / sum(seconds):,.0f} images/s on the clock; a batch: median {np.median(seconds) * 1e3:.2f} ms, "
        f"longest {max(seconds) * 1e3:.1f} ms"
    )
    lap(f"{len(seconds):,} batches")
    now = memory()
    print(
        f"{now['VmHWM']:,.0f} MiB at most; at the end {now['RssAnon']:,.0f} its own (of it {held:,.0f} before), "
        f"{now['RssFile']:,.0f} of files",
        flush=True,
    )


if __name__ == "__main__":
    main()
