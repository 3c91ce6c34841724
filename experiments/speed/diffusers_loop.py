"""The work of diffusers' own training loop, and its DDIM pipeline.

The loop is that of its examples/unconditional_image_generation/train_unconditional.py, with the example's defaults.
What is left out is to its advantage: accelerate, progress bar and trackers, and the reading and decoding of images.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from experiments.speed.work import TIMES, Work
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset


class Images(Dataset[Mapping[str, Tensor]]):
    """Images uint8 (N, C, H, W), each mirrored at random and scaled to [-1, 1] when it is asked for."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Mapping[str, Tensor]:
        image = self.images[index].float().div(255).sub(0.5).div(0.5)
        return {"input": image.flip(-1) if torch.rand(1) < 0.5 else image}


class Loop(NamedTuple):
    """What the example trains a network with, by its defaults and with ``--use_ema``."""

    noise: DDPMScheduler
    optimizer: torch.optim.Optimizer
    rate: LRScheduler
    ema: EMAModel

    @classmethod
    def of(cls, network: UNet2DModel, steps: int) -> "Loop":
        """That of a network and of so many optimizer steps, which the rate's schedule spans."""
        parameters = list(network.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
        return cls(
            DDPMScheduler(num_train_timesteps=TIMES, beta_schedule="linear"),
            optimizer,
            get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=steps),
            EMAModel(
                parameters,
                decay=0.9999,
                use_ema_warmup=True,
                inv_gamma=1.0,
                power=0.75,
                model_cls=UNet2DModel,
                model_config=network.config,
            ),
        )

    def step(self, network: UNet2DModel, images: Tensor, precision: AbstractContextManager[object]) -> None:
        """An optimizer step on images (B, C, H, W) in [-1, 1]; the forward pass is of a precision, see `autocast`."""
        noise = torch.randn(images.shape, device=images.device)
        times = torch.randint(0, TIMES, (len(images),), device=images.device)
        noisy = self.noise.add_noise(images, noise, times)
        with precision:
            output = network(noisy, times).sample
        mse_loss(output.float(), noise).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        self.optimizer.step()
        self.rate.step()
        self.optimizer.zero_grad()
        self.ema.step(network.parameters())


class DiffusersStep:
    """A step of its training.

    Args:
        work: the work.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.network = UNet2DModel(**work.unet_2d).to(work.device)
        self.loop = Loop.of(self.network, 100_000)
        self.batches = self._batches()

    def _batches(self) -> Iterator[Tensor]:
        """Epoch after epoch, but for what is left of each, so that every batch is of the same size."""
        made_images = Images(self.work.load_images())
        loader = DataLoader(made_images, self.work.batch_size, shuffle=True, drop_last=True)
        while True:
            for batch in loader:
                yield batch["input"].to(self.work.device)

    def __call__(self) -> None:
        """Take the step."""
        self.loop.step(self.network, next(self.batches), self.work.autocast())


class DiffusersSampling:
    """A batch of samples of its DDIM pipeline.

    Args:
        work: the work.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.network = UNet2DModel(**work.unet_2d).to(work.device).eval()
        scheduler = DDIMScheduler(num_train_timesteps=TIMES, beta_schedule="linear", timestep_spacing="trailing")
        self.pipeline = DDIMPipeline(self.network, scheduler)
        self.pipeline.set_progress_bar_config(disable=True)

    def __call__(self) -> None:
        """Make a batch."""
        with self.work.autocast():
            self.pipeline(self.work.batch_size, num_inference_steps=self.work.sampling_steps, output_type="numpy")
