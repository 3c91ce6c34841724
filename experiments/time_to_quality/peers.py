"""The peers: the training that their own code does by default, step by step, on images in memory.

What is left out is to their advantage: accelerate, progress bars, trackers, the grids of samples, and the reading and
decoding of images, which here are one tensor from which batches are taken.
"""

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn.functional import mse_loss

TIMES = 1000


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
        parameters = list(self.network.parameters())
        self.noise = DDPMScheduler(num_train_timesteps=TIMES, beta_schedule="linear")
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
        self.rate = get_scheduler("cosine", self.optimizer, num_warmup_steps=500, num_training_steps=self.total)
        self.ema = EMAModel(
            parameters,
            decay=0.9999,
            use_ema_warmup=True,
            inv_gamma=1.0,
            power=0.75,
            model_cls=UNet2DModel,
            model_config=self.network.config,
        )

    def parts(self) -> Mapping[str, Any]:
        """See `Peer`."""
        return {"network": self.network, "optimizer": self.optimizer, "rate": self.rate, "ema": self.ema}

    def step(self, images: Tensor) -> None:
        """See `Peer`."""
        noise = torch.randn(images.shape)
        times = torch.randint(0, TIMES, (len(images),))
        noisy = self.noise.add_noise(images, noise, times)
        loss = mse_loss(self.network(noisy, times).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.rate.step()
        self.optimizer.zero_grad()
        self.ema.step(self.network.parameters())

    def ema_weights(self) -> dict[str, Tensor]:
        """See `Peer`."""
        names = [name for name, _ in self.network.named_parameters()]
        return dict(zip(names, (weight.clone() for weight in self.ema.shadow_params), strict=True))


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
