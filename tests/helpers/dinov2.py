"""A small stand-in for DINOv2 in torch hub's cache: with its interface, its patches, and no attention between them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

CHANNELS = 6
HUBCONF = f"""
import torch


class Patches(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, {CHANNELS}, 14, 14)

    def forward_features(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return {{"x_norm_clstoken": tokens.mean(1), "x_norm_patchtokens": tokens}}

    def forward(self, x):
        return self.forward_features(x)["x_norm_clstoken"]


def make(name):
    network = Patches()
    url = f"http://127.0.0.1:1/{{name}}_pretrain.pth"
    network.load_state_dict(torch.hub.load_state_dict_from_url(url, map_location="cpu"))
    return network


def dinov2_vits14():
    return make("dinov2_vits14")


def dinov2_vitb14():
    return make("dinov2_vitb14")
"""


def save_dinov2(hub: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """Put its code and weights where torch hub looks for them; the weights are returned."""
    (hub / "facebookresearch_dinov2_main").mkdir(parents=True, exist_ok=True)
    (hub / "facebookresearch_dinov2_main" / "hubconf.py").write_text(HUBCONF)
    (hub / "checkpoints").mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    state = {
        "patches.weight": torch.randn(CHANNELS, 3, 14, 14, generator=generator) / 24,
        "patches.bias": torch.randn(CHANNELS, generator=generator),
    }
    for name in ("dinov2_vits14", "dinov2_vitb14"):
        torch.save(state, hub / "checkpoints" / f"{name}_pretrain.pth")
    return state


def refuse(request: object) -> None:
    """What an attempt to reach the internet ends in."""
    raise URLError("no internet here")


@contextmanager
def offline_hub(place: Path) -> Iterator[Path]:
    """Torch hub with its cache at a place, and without internet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.hub, "_hub_dir", str(place))
        patch.setattr(torch.hub, "urlopen", refuse)
        yield place
