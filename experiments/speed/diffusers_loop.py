"""The work of diffusers' own training loop, and its DDIM pipeline.

The loop is that of its examples/unconditional_image_generation/train_unconditional.py, with the example's defaults.
What is left out is to its advantage: accelerate, progress bar and trackers, and the reading and decoding of images.
"""

from collections.abc import Iterator, Mapping

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from experiments.speed.work import TIMES, Work
from torch import Tensor
from torch.nn.functional import mse_loss
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


class DiffusersStep:
    """A step of its training.

    Args:
        work: the work.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.network = UNet2DModel(**work.unet_2d).to(work.device)
        parameters = list(self.network.parameters())
        self.scheduler = DDPMScheduler(num_train_timesteps=TIMES, beta_schedule="linear")
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
        self.lr_scheduler = get_scheduler("cosine", self.optimizer, num_warmup_steps=500, num_training_steps=100_000)
        self.average = EMAModel(
            parameters,
            decay=0.9999,
            use_ema_warmup=True,
            inv_gamma=1.0,
            power=0.75,
            model_cls=UNet2DModel,
            model_config=self.network.config,
        )
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
        images = next(self.batches)
        noise = torch.randn(images.shape, device=images.device)
        times = torch.randint(0, TIMES, (len(images),), device=images.device)
        noisy = self.scheduler.add_noise(images, noise, times)
        with self.work.autocast():
            output = self.network(noisy, times).sample
        mse_loss(output.float(), noise).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.lr_scheduler.step()
        self.optimizer.zero_grad()
        self.average.step(self.network.parameters())


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
