"""What the tests on a GPU share."""

import copy

import torch
from network_helpers import preset, randomize
from torch import Tensor, nn

from langevin.networks.unet import UNet


def options(device: str, precision: str = "bf16-mixed", benchmark: bool = True) -> tuple[str, ...]:
    """A run's options on a device: on a GPU those of `trainer=gpu`, as far as not given."""
    return (
        f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}",
        f"trainer.precision={precision}",
        f"trainer.benchmark={str(benchmark).lower()}",
    )


def unet(rehearsal: bool) -> tuple[UNet, int]:
    """`model=unet` without dropout, every weight random, and the size of its images."""
    cls, own = preset("unet")
    size = 32
    if rehearsal:
        own |= {"channels": 32, "channel_multipliers": [1, 2], "attention_resolutions": [8]}
        size = 16
    network = cls(in_channels=3, out_channels=3, image_size=size, condition=None, **own | {"dropout": 0.0})
    randomize(network)
    return network, size


class Outcome:
    """A network's output, and the gradients of a random mixture of it, all float32 on the CPU.

    Args:
        network: called with images, timesteps and `cond`; its own gradients are not touched.
        device: where to compute; the network is copied there.
        x: images (B, C, H, W).
        cond: the network's condition.
        bf16: under autocast to bfloat16.
        copied: False for a network that is there already and must not be copied.
    """

    def __init__(self, network: nn.Module, device: str, x: Tensor, cond=None, bf16=False, copied=True) -> None:
        network = copy.deepcopy(network).to(device) if copied else network
        x = x.to(device).requires_grad_()
        t = torch.linspace(1, 900, len(x)).to(device)
        cond = None if cond is None else {name: value.to(device) for name, value in cond.items()}
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            output = network(x, t, cond)
        mixture = torch.randn(output.shape, generator=torch.Generator().manual_seed(7)).to(device)
        weights = dict(network.named_parameters())
        found = torch.autograd.grad((output.float() * mixture).mean(), (x, *weights.values()))
        gradients = [gradient.float().cpu() for gradient in found]
        self.output = output.detach().float().cpu()
        self.input = gradients[0]
        self.weights = dict(zip(weights, gradients[1:], strict=True))

    @property
    def flat(self) -> Tensor:
        """The gradients of all weights in a row."""
        return torch.cat([gradient.flatten() for gradient in self.weights.values()])

    def errors(self, expected: "Outcome") -> dict[str, float]:
        """The greatest errors, relative to the greatest value.

        A gradient that is all but zero (a bias before a normalization has one) is held against the thousandth of the
        greatest of all weights.
        """
        least = 1e-3 * float(expected.flat.abs().max())
        of_weights = {
            name: float((self.weights[name] - value).abs().max()) / (float(value.abs().max()) + least)
            for name, value in expected.weights.items()
        }
        worst = max(of_weights, key=lambda name: of_weights[name])
        return {
            "output": greatest(self.output, expected.output),
            "input gradient": greatest(self.input, expected.input),
            f"gradient of {worst}": of_weights[worst],
        }

    def distances(self, expected: "Outcome") -> dict[str, float]:
        """The relative L2 errors."""
        return {
            "output": distance(self.output, expected.output),
            "gradient of all weights": distance(self.flat, expected.flat),
        }


def greatest(ours: Tensor, theirs: Tensor) -> float:
    """The greatest difference, relative to the greatest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The relative L2 error."""
    return float((ours - theirs).norm() / theirs.norm())
