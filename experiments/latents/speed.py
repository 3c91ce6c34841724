"""How fast a step in latents is beside one in pixels, and encoding and decoding beside diffusers' AutoencoderKL.

Usage: ``python -m experiments.latents.speed``. One thread; each pair takes turns, CPU time, the median of the ratios.
Memory is the greatest of a process of its own, less what it had before.
"""

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import BatchDraws
from langevin.diffusion.objective import Simple
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.time_sampler import UniformTimes
from langevin.diffusion.variance import FixedLarge
from langevin.diffusion.weighting import UnitEps
from langevin.interop.autoencoder_weights import to_diffusers
from langevin.networks.autoencoders.kl import KLAutoencoder
from langevin.networks.unet import UNet

ROUNDS, SIZE, BATCH = 7, 128, 4
PARAMETERS = {
    "latent_channels": 3,
    "channels": 64,
    "channel_multipliers": [1, 2, 4],
    "blocks_per_level": 2,
    "middle_attention": True,
    "norm_groups": 32,
}
UNET = {
    "channels": 64,
    "channel_multipliers": [1, 2, 2],
    "blocks_per_level": 1,
    "attention_resolutions": [16, 8],
    "single_up_attention": False,
    "heads": None,
    "head_channels": None,
    "dropout": 0.0,
}


def ours() -> KLAutoencoder:
    """KL-f4 at half its width."""
    torch.manual_seed(0)
    return KLAutoencoder(in_channels=3, image_size=SIZE, **PARAMETERS).eval().requires_grad_(False)


def theirs() -> nn.Module:
    """The same of diffusers, with the same weights."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[64, 128, 256],
        layers_per_block=2,
        latent_channels=3,
        sample_size=SIZE,
    )
    model.load_state_dict(to_diffusers(ours().state_dict(), PARAMETERS))
    return model.eval().requires_grad_(False)


def calls(kind: str) -> dict[str, Callable[[], Tensor]]:
    """Encoding and decoding of a batch, by `kind`: ours or theirs."""
    x, z = torch.randn(BATCH, 3, SIZE, SIZE).clamp(-1, 1), torch.randn(BATCH, 3, SIZE // 4, SIZE // 4)
    if kind == "ours":
        own = ours()
        return {"encoding": lambda: own.moments(x), "decoding": lambda: own.decode(z)}
    other = theirs()
    return {
        "encoding": lambda: other.encode(x).latent_dist.parameters,
        "decoding": lambda: other.decode(z).sample,
    }


def step(channels: int, size: int) -> Callable[[], None]:
    """A training step of the same U-Net on samples of some shape, batch 32."""
    process, objective = GaussianProcess(Linear(), Eps(), FixedLarge()), Simple(UniformTimes(), UnitEps())
    network = UNet(in_channels=channels, out_channels=channels, image_size=size, condition=None, **UNET)
    denoiser, x = Denoiser(network, process), torch.randn(32, channels, size, size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def train() -> None:
        optimizer.zero_grad()
        objective(denoiser, {"x": x}, BatchDraws(0, x, len(x)))["loss"].mean().backward()
        optimizer.step()

    return train


def compare(name: str, a: Callable[[], object], b: Callable[[], object], images: int) -> None:
    """Print the CPU time of both, taking turns, and the median ratio."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for call in (a, b):  # for the first time slow
        call()
    for _ in range(ROUNDS):
        for place, call in enumerate((a, b)):
            start = time.process_time()
            call()
            times[place].append(time.process_time() - start)
    ratio = statistics.median(second / first for first, second in zip(times[0], times[1], strict=True))
    rates = [images / statistics.median(spent) for spent in times.values()]
    print(f"{name}: {rates[0]:.1f} and {rates[1]:.1f} images/s, {ratio:.2f} times", flush=True)


def memory(kind: str, name: str) -> float:
    """The memory that a call takes at most, in MiB, in a process of its own."""
    program = f"from experiments.latents.speed import measured; measured({kind!r}, {name!r})"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    return float(out.split()[-1])


def measured(kind: str, name: str) -> None:
    """Print what `memory` asks for."""
    torch.set_num_threads(1)
    call = calls(kind)[name]
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    with torch.no_grad():
        call()
    print((resident("VmHWM") - before) / 1024)


def resident(what: str) -> int:
    """Resident memory of this process, now (VmRSS) or at its peak (VmHWM): kB. On Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def main() -> None:
    """Print all of it."""
    torch.set_num_threads(1)
    compare("a step on 16x16x4 latents and on 32x32x3 pixels, the same U-Net", step(4, 16), step(3, 32), 32)
    own, other = calls("ours"), calls("theirs")
    with torch.no_grad():
        for name in own:
            compare(f"{name} {BATCH} images of {SIZE}x{SIZE}, ours and diffusers'", own[name], other[name], BATCH)
    for name in own:
        print(f"{name}: {memory('ours', name):.0f} MiB, diffusers {memory('theirs', name):.0f} MiB")


if __name__ == "__main__":
    main()
