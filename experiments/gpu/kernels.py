"""Where the time of a training step goes: the kernels that take longest, and how long the GPU has nothing to do.

Usage: ``python -m experiments.gpu.kernels cuda|cpu --out=DIR``
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from experiments.gpu.speed import TINY
from experiments.speed.benchmark import parser as benchmark_parser
from experiments.speed.measure import work_of
from experiments.speed.ours import fit_of
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile

from langevin.files import write_json

WARM_UP, STEPS, ROWS = 10, 5, 10


class Profiled(Callback):
    """Profiles some steps of a fit, after some to warm up; the steps after them are timed without the profiler.

    Attributes:
        results: what was found.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
        self.profiler = profile(activities=activities)
        self.results: dict[str, Any] = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start and stop."""
        step = trainer.global_step
        if step == WARM_UP:
            self._wait()
            self.began = time.perf_counter()
        elif step == WARM_UP + STEPS:
            self._wait()
            self.plain = (time.perf_counter() - self.began) / STEPS
            if self.device == "cuda":
                self.results["peak_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            self.profiler.start()
        elif step == WARM_UP + 2 * STEPS:
            self._wait()
            self.profiler.stop()
            self._read()

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _read(self) -> None:
        on_gpu = self.device == "cuda"
        times = {
            event.key: ((event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6, event.count)
            for event in self.profiler.key_averages()
            # Of a GPU's, the kernels alone: what called them, or is noted around them, is given their time once more.
            if not on_gpu or (event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation)
        }
        busy = sum(seconds for seconds, _ in times.values()) / STEPS
        longest = sorted(times.items(), key=lambda item: -item[1][0])[:ROWS]
        self.results |= {
            "seconds_per_step": self.plain,
            "busy_seconds_per_step": busy,
            "kernels_per_step": sum(count for _, count in times.values()) / STEPS,
            # The profiler slows the host down, not the kernels: their time is set beside that of a step without it.
            "idle_share": max(0.0, 1 - busy / self.plain) if on_gpu else None,
            "longest": [
                {
                    "name": name,
                    "share": seconds / STEPS / busy,
                    "ms_per_step": 1e3 * seconds / STEPS,
                    "calls": n / STEPS,
                }
                for name, (seconds, n) in longest
            ],
        }


def main() -> None:
    """Profile a fit of `model=unet` (bfloat16, batches of 128; in a rehearsal a tiny one)."""
    asked = argparse.ArgumentParser("python -m experiments.gpu.kernels", description=(__doc__ or "").splitlines()[0])
    asked.add_argument("device", choices=("cuda", "cpu"))
    asked.add_argument("--out", type=Path, required=True, help="folder of results.json")
    options = asked.parse_args()
    size = ["--batch-size=4", "--images=20", *TINY]
    if options.device == "cuda":
        size = ["--batch-size=128", "--precision=bf16-mixed"]
    with tempfile.TemporaryDirectory(prefix="langevin-kernels-") as temporary:
        work = work_of(benchmark_parser().parse_intermixed_args(size), options.device, Path(temporary))
        profiled = Profiled(options.device)
        fit_of(work, Path(temporary) / "run", WARM_UP + 2 * STEPS).run(profiled)
    write_json(options.out / "results.json", profiled.results)


if __name__ == "__main__":
    main()
