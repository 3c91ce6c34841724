"""What each operation of a training step takes, and what the machine would need for it at the least.

Usage: ``python -m experiments.speed.roofline [OPTIONS] [OPTIONS OF train.py]``; see the README, and ``--help``.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from langevin.cli import calm_threads

calm_threads()  # as every command does, before torch is imported

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from experiments.speed.benchmark import parser  # noqa: E402
from experiments.speed.measure import work_of  # noqa: E402
from experiments.speed.ours import network_alone  # noqa: E402
from experiments.speed.utilisation import Matmul  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count  # noqa: E402

from langevin.files import write_atomically, write_json  # noqa: E402

KINDS = {
    "convolution": "convolutions",
    "mm": "products of matrices",
    "attention": "attention",
    "norm": "normalization",
    "silu": "SiLU",
}
"""What kind an operation is of, by what its name has; all others are "other"."""
COPIES = tuple(2**power for power in range(12, 29, 2))
"""Bytes that a copy reads and writes: the smaller ones stay in the caches."""
ATTENTION = {
    "_scaled_dot_product_flash_attention_for_cpu": sdpa_flop_count,
    "_scaled_dot_product_flash_attention_for_cpu_backward": sdpa_backward_flop_count,
}
"""Operations whose FLOPs torch counts on a GPU alone, by the shapes of their first tensors."""


@dataclass
class Operation:
    """An operation on tensors of certain shapes.

    Attributes:
        name: torch's, such as "mm".
        shapes: of its tensors.
        flops: floating-point operations of a call, by torch's count: products alone.
        bytes: of its tensors, what goes in and what comes out.
        calls: of it in a step.
        seconds: of CPU, of all calls of a step, step by step.
    """

    name: str
    shapes: str
    flops: float
    bytes: float
    calls: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """See `KINDS`."""
        return next((kind for part, kind in KINDS.items() if part in self.name), "other")


class Operations(TorchDispatchMode):
    """Times every operation that torch is given, those of the backward pass too.

    What makes a view of a tensor and computes nothing is left out.

    Attributes:
        known: all operations so far, by their name and shapes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[tuple[str, str], Operation] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Time it."""
        kwargs = kwargs or {}
        began = time.process_time()
        out = func(*args, **kwargs)
        seconds = time.process_time() - began
        if not is_view(func):
            inputs, outputs = tensors_of((args, kwargs)), tensors_of(out)
            key = func._opname, " ".join("x".join(map(str, tensor.shape)) for tensor in inputs)
            if key not in self.known:
                flops = flops_of(func, args, kwargs, out)
                moved = sum(tensor.numel() * tensor.itemsize for tensor in (*inputs, *outputs))
                self.known[key] = Operation(*key, flops, moved)
            self.taken[key].append(seconds)
        return out

    def step(self, act: Callable[[], object]) -> float:
        """Run a step; returns its seconds, those of this counting included."""
        self.taken: dict[tuple[str, str], list[float]] = defaultdict(list)
        began = time.process_time()
        with self:
            act()
        for key, seconds in self.taken.items():
            self.known[key].calls = len(seconds)
            self.known[key].seconds.append(sum(seconds))
        return time.process_time() - began


def is_view(func: Any) -> bool:
    """Whether an operation gives another look at a tensor, and writes nothing."""
    results = [result.alias_info for result in func._schema.returns]
    return bool(results) and all(alias is not None and not alias.is_write for alias in results)


def flops_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> float:
    """Floating-point operations of the products of a call, by torch's own count; 0 for all others."""
    if func._opname in ATTENTION:
        count = ATTENTION[func._opname]
        number = count.__code__.co_argcount
        return float(count(*(tensor.shape for tensor in tensors_of(args)[:number])))
    counted = flop_registry.get(func._overloadpacket)
    return float(counted(*args, **kwargs, out_val=out)) if counted else 0.0


def tensors_of(values: Any) -> list[Tensor]:
    """All tensors in nested values."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class Machine:
    """What the machine can do, measured in the same rounds.

    Attributes:
        rates: FLOP/s, by name, round by round.
        copies: bytes a second of copies, by their size, round by round.
    """

    def __init__(self) -> None:
        conv = nn.Conv2d(256, 256, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
        x = torch.randn(16, 256, 16, 16).contiguous(memory_format=torch.channels_last)
        product = Matmul("32-true")
        self.acts: dict[str, tuple[Callable[[], object], float]] = {
            "convolution, 256 channels": (lambda: conv(x), 2 * x.numel() * 256 * 9),
            "product of matrices": (product, product.flops),
        }
        self.rates: dict[str, list[float]] = defaultdict(list)
        self.copies: dict[int, list[float]] = defaultdict(list)
        self.memory = torch.zeros(2, COPIES[-1] // 8)  # float32: half is read, half is written

    @torch.no_grad()
    def measure(self) -> None:
        """A round."""
        for name, (act, flops) in self.acts.items():
            began = time.process_time()
            act()
            self.rates[name].append(flops / (time.process_time() - began))
        for size in COPIES:
            source, target = self.memory[:, : size // 8]
            times = max(1, 2**24 // size)
            began = time.process_time()
            for _ in range(times):
                target.copy_(source)
            self.copies[size].append(size * times / (time.process_time() - began))

    @property
    def peak(self) -> float:
        """FLOP/s: the best of all rounds."""
        return max(max(values) for values in self.rates.values())

    def bandwidth(self, size: float) -> float:
        """Bytes a second of a copy of so many bytes, on a straight line between the measured sizes."""
        best = [max(self.copies[known]) for known in COPIES]
        return float(np.interp(np.log(max(size, 1)), np.log(COPIES), best))

    def least_seconds(self, operation: Operation) -> float:
        """What all its calls in a step would take if they did no more than compute, or no more than move bytes."""
        moving = operation.bytes / self.bandwidth(operation.bytes)
        return operation.calls * max(operation.flops / self.peak, moving)


Found = dict[str, Any]


def measure(options: argparse.Namespace) -> Found:
    """Time the steps of the network alone, and the machine between them."""
    torch.set_num_threads(options.threads or 1)
    with tempfile.TemporaryDirectory() as folder:
        step = network_alone(work_of(options, "cpu", Path(folder)))
    operations, machine = Operations(), Machine()
    for _ in range(options.warm_up):
        step()
    plain, counted = [], []
    for _ in range(options.rounds):
        began = time.process_time()
        step()
        plain.append(time.process_time() - began)
        counted.append(operations.step(step))
        machine.measure()
    rows = [
        {
            "name": operation.name,
            "shapes": operation.shapes,
            "kind": operation.kind,
            "calls": operation.calls,
            "seconds": median(operation.seconds),
            "flops": operation.calls * operation.flops,
            "bytes": operation.calls * operation.bytes,
            "least_seconds": machine.least_seconds(operation),
        }
        for operation in operations.known.values()
        if len(operation.seconds) == options.rounds
    ]
    return {
        "batch_size": options.batch_size,
        "options": options.overrides,
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "step_seconds": median(plain),
        "counted_seconds": median(counted),
        "peak": machine.peak,
        "rates": {name: median(values) for name, values in machine.rates.items()},
        "copies": {str(size): max(values) for size, values in machine.copies.items()},
        "operations": sorted(rows, key=lambda row: -row["seconds"]),
    }


def by_kind(found: Found) -> Iterator[tuple[str, list[Found]]]:
    """The operations of each kind, the longest first."""
    kinds: dict[str, list[Found]] = defaultdict(list)
    for row in found["operations"]:
        kinds[row["kind"]].append(row)
    yield from sorted(kinds.items(), key=lambda item: -sum(row["seconds"] for row in item[1]))


def table(found: Found) -> str:
    """What each kind takes, as Markdown."""
    whole = sum(row["seconds"] for row in found["operations"])
    lines = [
        f"Batches of {found['batch_size']}, {found['threads']} thread, {found['rounds']} rounds. A step takes "
        f"{found['step_seconds']:.2f} CPU s, with this counting {found['counted_seconds']:.2f}. Peak "
        f"{found['peak'] / 1e9:.0f} GFLOP/s, the best of "
        + " and ".join(f"a {name} (median {rate / 1e9:.0f})" for name, rate in found["rates"].items())
        + ". A copy moves "
        + ", ".join(f"{rate / 1e9:.0f} GB/s at {int(size) / 2**20:g} MiB" for size, rate in found["copies"].items())
        + ".",
        "",
        "| | calls | of the time | GFLOP/s | GB/s | of its roof | a step with it at its roof |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]

    def line(name: str, rows: Sequence[Found]) -> str:
        calls, seconds, flops, moved, least = (
            sum(row[name] for row in rows) for name in ("calls", "seconds", "flops", "bytes", "least_seconds")
        )
        return (
            f"| {name} | {calls} | {seconds / whole:.1%} | {flops / seconds / 1e9:.0f} | {moved / seconds / 1e9:.0f} | "
            f"{least / seconds:.0%} | {whole / (whole - max(seconds - least, 0)):.2f} times as fast |"
        )

    lines += [line(name, rows) for name, rows in by_kind(found)]
    lines.append(line("all", found["operations"]))
    return "\n".join(lines) + "\n"


def draw(found: Found, path: Path) -> None:
    """Every operation that computes products, its rate against its intensity, under the roof."""
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, rows in by_kind(found):
        shown = [row for row in rows if row["flops"]]
        if shown:
            axis.scatter(
                [row["flops"] / row["bytes"] for row in shown],
                [row["flops"] / row["seconds"] / 1e9 for row in shown],
                [2000 * row["seconds"] / found["counted_seconds"] + 4 for row in shown],
                alpha=0.6,
                label=name,
            )
    intensity = np.geomspace(0.5, 1000, 100)
    largest = found["copies"][max(found["copies"], key=int)]
    for label, rate in (("copies in caches", max(found["copies"].values())), ("copies in memory", largest)):
        axis.plot(intensity, np.minimum(found["peak"], intensity * rate) / 1e9, label=f"roof, {label}", lw=1)
    axis.set(xscale="log", yscale="log", xlabel="FLOP a byte", ylabel="GFLOP/s")
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8, markerscale=0.5)
    axis.set_title("Operations of a training step; their area is their time", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write roofline.json, roofline.md and roofline.png."""
    options = parser().parse_intermixed_args(arguments)
    found = measure(options)
    write_json(options.out / "roofline.json", found)
    write_atomically(options.out / "roofline.md", lambda file: file.write(table(found).encode()))
    draw(found, options.out / "roofline.png")
    print(table(found))


if __name__ == "__main__":
    main()
