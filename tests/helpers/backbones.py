"""Networks of torchvision with random weights, in the layout of the files that it publishes."""

from pathlib import Path

import torch
import torchvision

NAMES = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}
"""By the names that LPIPS has for them."""


def random_state(net: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict of the convolutions, large enough that the activations do not die away; without the classifier."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = getattr(torchvision.models, NAMES[net])(weights=None).features.state_dict()
    state = {}
    for name, shape in shapes.items():
        fan_in = shape[0].numel() if shape.ndim > 1 else 1
        scale = (2 / fan_in) ** 0.5 if shape.ndim > 1 else 0.1
        state[f"features.{name}"] = torch.randn(shape.shape, generator=generator) * scale
    return state


def save_backbone(path: Path, net: str, seed: int = 0) -> Path:
    """Write such a file, with a layer of the classifier, which nobody reads."""
    torch.save(random_state(net, seed) | {"classifier.0.weight": torch.zeros(1)}, path)
    return path
