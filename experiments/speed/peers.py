"""The peers' own networks of the same widths, their optimizers and averages, from their own code.

LANGEVIN_PEERS names a folder with checkouts of guided-diffusion, improved-diffusion and edm (tests/networks/peers.md
says how to get them); denoising_diffusion_pytorch is taken where it can be imported. Their data, noise and logs are
left out.
"""

import copy
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from experiments.speed.work import NetworkStep, Work, fill_zeros


def guided_diffusion(work: Work) -> NetworkStep:
    """ADM's code."""
    return _openai(work, "guided-diffusion", "guided_diffusion")


def improved_diffusion(work: Work) -> NetworkStep:
    """IDDPM's code."""
    return _openai(work, "improved-diffusion", "improved_diffusion")


def _openai(work: Work, checkout: str, package: str) -> NetworkStep:
    unet, functions = imported(checkout, f"{package}.unet", f"{package}.nn")
    channels, size, _ = work.shape
    arguments = {} if checkout == "improved-diffusion" else {"image_size": size}
    network = unet.UNetModel(
        **arguments,
        in_channels=channels,
        model_channels=work.network["channels"],
        out_channels=channels,
        num_res_blocks=work.network["blocks_per_level"],
        attention_resolutions=[size // resolution for resolution in work.network["attention_resolutions"]],
        dropout=work.network["dropout"],
        channel_mult=work.network["channel_multipliers"],
    )
    fill_zeros(network).to(work.device)
    parameters = list(network.parameters())
    averages = copy.deepcopy(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
    return NetworkStep(work, network, optimizer, lambda: functions.update_ema(averages, parameters, rate=0.9999))


def song_unet(work: Work) -> NetworkStep:
    """EDM's code, DDPM++."""
    (networks,) = imported("edm", "training.networks")
    channels, size, _ = work.shape
    network = networks.SongUNet(
        size,
        channels,
        channels,
        model_channels=work.network["channels"],
        channel_mult=work.network["channel_multipliers"],
        num_blocks=work.network["blocks_per_level"],
        attn_resolutions=work.network["attention_resolutions"],
        dropout=work.network["dropout"],
    )
    fill_zeros(network).to(work.device)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)

    def follow() -> None:
        # Weight by weight, each through a new tensor, as its training loop does.
        for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
            slow.copy_(torch.lerp(fast.detach(), slow, 0.9999))

    return NetworkStep(work, network, optimizer, follow, others=(None,))


def lucidrains(work: Work) -> NetworkStep:
    """denoising-diffusion-pytorch; its average follows every tenth step."""
    code = importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    widths = tuple(work.network["channel_multipliers"])
    network = code.Unet(work.network["channels"], dim_mults=widths, channels=work.shape[0])
    fill_zeros(network).to(work.device)
    average = code.EMA(network, beta=0.995, update_every=10)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.99))
    return NetworkStep(work, network, optimizer, average.update)


def imported(checkout: str, *modules: str) -> list[ModuleType]:
    """Modules of a checkout in the folder that LANGEVIN_PEERS names.

    Raises:
        ModuleNotFoundError: when there is none.
    """
    folder = Path(os.environ.get("LANGEVIN_PEERS", "unset")) / checkout
    if not folder.is_dir():
        raise ModuleNotFoundError(f"no {checkout} in LANGEVIN_PEERS: see tests/networks/peers.md")
    with _on_path(folder):
        return [importlib.import_module(module) for module in modules]


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    # No longer than needed: guided-diffusion has a folder `datasets`, edm a `train.py`.
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
