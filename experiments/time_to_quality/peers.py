"""The peers: the training that their own code does by default, step by step, on images in memory.

What is left out is to their advantage: accelerate, progress bars, trackers, the grids of samples, and the reading and
decoding of images, which here are one tensor from which batches are taken.
"""

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from experiments.speed.diffusers_loop import Loop
from torch import Tensor, nn


class Peer(ABC):
    """A training that can be stopped and resumed at any step.

    Args:
        images: the data in [-1, 1], (N, C, H, W).
        seed: of weights, order and noise.

    Attributes:
        cpu: seconds of CPU that its steps have taken, user and system.
        steps: that it has taken.
        total: steps after which it is at its end.
    """

    BATCH = 16
    network: nn.Module
    total: int

    def __init__(self, images: Tensor, seed: int) -> None:
        torch.manual_seed(seed)
        self.images = images
        self.cpu = 0.0
        self.steps = 0
        self.batches = self._batches()
        self.make()
        self.random = torch.get_rng_state()

    @abstractmethod
    def make(self) -> None:
        """Make network, optimizer and EMA."""

    @abstractmethod
    def parts(self) -> Mapping[str, Any]:
        """What has a state, by name."""

    @abstractmethod
    def step(self, images: Tensor) -> None:
        """Take an optimizer step on a batch."""

    @abstractmethod
    def ema_weights(self) -> dict[str, Tensor]:
        """The EMA weights of the network, under its own names."""

    def advance(self, until: float) -> None:
        """Train until so many seconds of CPU have been used; its random numbers are its own."""
        torch.set_rng_state(self.random)
        while self.cpu < until and self.steps < self.total:
            began = time.process_time()
            self.step(next(self.batches))
            self.cpu += time.process_time() - began
            self.steps += 1
        self.random = torch.get_rng_state()

    def _batches(self) -> Iterator[Tensor]:
        # A smaller batch ends each epoch, as in both loaders.
        while True:
            yield from self.images[torch.randperm(len(self.images))].split(self.BATCH)

    def save(self, path: Path) -> None:
        """Write all that `load` needs; the epoch begins anew then."""
        states = {name: part.state_dict() for name, part in self.parts().items()}
        torch.save({"states": states, "cpu": self.cpu, "steps": self.steps, "random": self.random}, path)

    def load(self, path: Path) -> None:
        """Resume from what `save` wrote."""
        saved = torch.load(path, weights_only=True)
        for name, part in self.parts().items():
            part.load_state_dict(saved["states"][name])
        self.cpu, self.steps, self.random = saved["cpu"], saved["steps"], saved["random"]


class Diffusers(Peer):
    """Of train_unconditional.py in diffusers' examples/unconditional_image_generation, with --use_ema.

    Args:
        images: see `Peer`.
        seed: see `Peer`.
        unet: the arguments of the `UNet2DModel`.
        epochs: that the cosine schedule of the learning rate spans; the example's default is 100.
    """

    def __init__(self, images: Tensor, seed: int, unet: Mapping[str, Any], epochs: int = 100) -> None:
        self.unet = unet
        self.total = -(-len(images) // self.BATCH) * epochs
        super().__init__(images, seed)

    def make(self) -> None:
        """See `Peer`."""
        self.network = UNet2DModel(**self.unet)
        self.loop = Loop.of(self.network, self.total)

    def parts(self) -> Mapping[str, Any]:
        """See `Peer`."""
        return {
            "network": self.network,
            "optimizer": self.loop.optimizer,
            "rate": self.loop.rate,
            "ema": self.loop.ema,
        }

    def step(self, images: Tensor) -> None:
        """See `Peer`."""
        self.loop.step(self.network, images, nullcontext())

    def ema_weights(self) -> dict[str, Tensor]:
        """See `Peer`."""
        names = [name for name, _ in self.network.named_parameters()]
        return dict(zip(names, (weight.clone() for weight in self.loop.ema.shadow_params), strict=True))


class Lucidrains(Peer):
    """Of the `Trainer` of denoising-diffusion-pytorch.

    Args:
        images: see `Peer`.
        seed: see `Peer`.
        unet: the arguments of its `Unet`.
    """

    def __init__(self, images: Tensor, seed: int, unet: Mapping[str, Any]) -> None:
        self.unet = unet
        self.total = 100_000
        super().__init__(images, seed)

    def make(self) -> None:
        """See `Peer`."""
        code = lucidrains_code()
        self.diffusion = code.GaussianDiffusion(code.Unet(**self.unet), image_size=self.images.shape[-1])
        self.network = self.diffusion.model
        self.optimizer = torch.optim.Adam(self.diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))
        self.ema = code.EMA(self.diffusion, beta=0.995, update_every=10)

    def parts(self) -> Mapping[str, Any]:
        """See `Peer`."""
        return {"diffusion": self.diffusion, "optimizer": self.optimizer, "ema": self.ema}

    def step(self, images: Tensor) -> None:
        """See `Peer`."""
        self.diffusion((images + 1) / 2).backward()
        torch.nn.utils.clip_grad_norm_(self.diffusion.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()

    def ema_weights(self) -> dict[str, Tensor]:
        """See `Peer`."""
        return {name: weight.clone() for name, weight in self.ema.ema_model.model.state_dict().items()}


def lucidrains_code() -> Any:
    """Its module.

    Raises:
        ModuleNotFoundError: when it is not installed.
    """
    return importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
