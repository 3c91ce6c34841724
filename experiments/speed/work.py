"""What every contender is given to do; it imports torch alone, for one contender must not load another's code."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import Optimizer

TIMES = 1000


@dataclass(frozen=True)
class Work:
    """The work: plain values, so that another process can be given it.

    Attributes:
        overrides: what makes it a command line of `train.py`.
        network: the parameters of our `UNet`.
        unet_2d: the arguments of the `UNet2DModel` that is the same network.
        shape: of an image, (C, H, W).
        images: a file of them, uint8 (N, C, H, W).
        batch_size: images of a step of training, and of a batch of samples.
        sampling_steps: evaluations of the network for a sample.
        precision: of forward and backward pass, by Lightning's names: "32-true" or "bf16-mixed".
        device: "cpu" or "cuda".
        threads: of torch; None: as many as it takes by itself.
    """

    overrides: list[str]
    network: dict[str, Any]
    unet_2d: dict[str, Any]
    shape: tuple[int, int, int]
    images: str
    batch_size: int
    sampling_steps: int
    precision: str
    device: str
    threads: int | None

    @classmethod
    def read(cls, path: Path) -> "Work":
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)))

    def load_images(self) -> Tensor:
        """The images, decoded and in memory."""
        return torch.from_numpy(np.load(self.images))

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of a forward pass, the same for every contender."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16-mixed")


class NetworkStep:
    """A step of training that is a network's alone: forward, mean squared error, backward, optimizer; one fixed batch.

    Args:
        work: the work.
        network: called with noisy images (B, C, H, W) and times (B,).
        optimizer: of its parameters.
        after: what follows the optimizer's step.
        others: what the network is called with besides.
    """

    def __init__(
        self,
        work: Work,
        network: nn.Module,
        optimizer: Optimizer,
        after: Callable[[], object] = lambda: None,
        others: tuple[Any, ...] = (),
    ) -> None:
        self.work = work
        self.network = network
        self.optimizer = optimizer
        self.after = after
        self.others = others
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2, work.batch_size, *work.shape, generator=generator)
        self.x, self.target = noise.to(work.device)
        self.t = torch.randint(TIMES, (work.batch_size,), generator=generator).float().to(work.device)

    def __call__(self) -> None:
        """Take the step."""
        self.optimizer.zero_grad()
        with self.work.autocast():
            output = self.network(self.x, self.t, *self.others)
        mse_loss(output.float(), self.target).backward()
        self.optimizer.step()
        self.after()


class Watch:
    """Counts how often a network is called, and for how many images.

    Args:
        network: the network, whose first argument is the images.
    """

    def __init__(self, network: nn.Module) -> None:
        self.calls = self.images = 0
        network.register_forward_pre_hook(self._count)

    def _count(self, network: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.calls += 1
        self.images += len(arguments[0])

    def per(self, number: int) -> Mapping[str, float]:
        """The counts of one step, after so many."""
        return {"calls": self.calls / number, "images": self.images / number}


@torch.no_grad()
def fill_zeros(network: nn.Module) -> nn.Module:
    """Give weights that start at zero small random values; returns the network.

    What they multiply would be zero or denormal in the first steps, which take another time than all that follow.
    """
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        if not weight.any():
            weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    return network
