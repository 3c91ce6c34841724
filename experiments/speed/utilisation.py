"""What a network computes, and what the machine could."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

GPUS = {
    "H200": (495e12, 989e12),
    "H100 PCIe": (378e12, 756e12),
    "H100": (495e12, 989e12),
    "A100": (156e12, 312e12),
    "L40S": (183e12, 362e12),
    "L4": (60e12, 121e12),
    "A10": (62.5e12, 125e12),
    "RTX 4090": (82.6e12, 165e12),
    "RTX 3090": (35.6e12, 71e12),
}
"""FLOP/s of dense multiplication by their makers: in TF32, in which torch convolves float32 by itself, and bfloat16."""


class _NoModules:
    """For the counter's tracker of modules, which fails where attention is computed again (guided-diffusion's)."""

    parents = ("Global",)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


def flops_of(act: Callable[[], object]) -> int:
    """Floating-point operations of matrix multiplications, convolutions and attentions in `act`, counted by torch."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    with torch.compiler.set_stance("force_eager"), counter:  # what is compiled hides from it
        act()
    return counter.get_total_flops()


def peak_of_gpu(precision: str) -> float | None:
    """FLOP/s of this GPU; None where it is not known here."""
    name = torch.cuda.get_device_name()
    return next((peaks[precision == "bf16-mixed"] for known, peaks in GPUS.items() if known in name), None)


class Matmul:
    """A large matrix multiplication on the CPU: the most that it computes in a second.

    Args:
        precision: by Lightning's names.

    Attributes:
        flops: floating-point operations of one.
    """

    size = 2048
    flops = 2 * size**3

    def __init__(self, precision: str) -> None:
        dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
        self.a, self.b, self.result = (torch.ones(self.size, self.size, dtype=dtype) for _ in range(3))

    def __call__(self) -> None:
        """Multiply."""
        torch.mm(self.a, self.b, out=self.result)
