"""The same weights in diffusers' UNet2DModel and in ours."""

import pytest
import torch
from diffusers import UNet2DModel
from network_helpers import assert_same, images, labelled, norms, preset, randomize

from langevin.interop.diffusers import from_diffusers, unet_2d_config
from langevin.networks.unet import UNet

TIMES = torch.tensor([0, 517, 999])
CLASSES = 10
_, UNET = preset("unet")
SMALL = UNET | {"channel_multipliers": [1, 2], "blocks_per_level": 1, "attention_resolutions": [8, 4]}
CELEBAHQ_256 = UNET | {"channel_multipliers": [1, 1, 2, 2, 4, 4]}
"""google/ddpm-celebahq-256."""


def networks(own, size, num_classes=None):
    theirs = UNet2DModel(**unet_2d_config(own, 3, 3, size, num_classes))
    condition = None if num_classes is None else labelled(num_classes)
    ours = UNet(in_channels=3, out_channels=3, image_size=size, condition=condition, **own)
    randomize(theirs)
    ours.load_state_dict(from_diffusers(theirs.state_dict(), own), strict=True)
    return ours.eval(), theirs.eval()


def assert_equal(ours, theirs, size, labels=None, dtype=torch.float64):
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    times = TIMES[: 1 if size > 64 else 3]
    cond = None if labels is None else {"label": labels}
    theirs_labels = None if labels is None else labels.where(labels >= 0, CLASSES)
    x = images(len(times), size).to(dtype)
    assert norms(ours) == norms(theirs)
    assert_same(lambda x: ours(x, times.float(), cond), lambda x: theirs(x, times, theirs_labels).sample, x)


@pytest.mark.slow
def test_preset_unet():
    """Diffusers runs in the usual memory format, ours with the channels innermost: that changes nothing either."""
    assert_equal(*networks(UNET, 32), 32, dtype=torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("size", [128, 256])
def test_celebahq_256(size):
    """Narrow, so that the number of groups, which theirs has at every width, is set to ours."""
    own = CELEBAHQ_256 | {"attention_resolutions": [size // 16]}
    narrow = {"block_out_channels": (32, 32, 64, 64, 128, 128)}
    theirs = UNet2DModel(**unet_2d_config(own, 3, 3, size) | narrow)
    for module in theirs.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.num_groups = min(32, module.num_channels // 4)
    randomize(theirs)
    own |= {"channels": 32}
    ours = UNet(in_channels=3, out_channels=3, image_size=size, condition=None, **own)
    ours.load_state_dict(from_diffusers(theirs.state_dict(), own), strict=True)
    assert_equal(ours.eval(), theirs.eval(), size)


@pytest.mark.parametrize(
    "changes",
    [
        {"head_channels": 16},
        {"head_channels": 64, "scale_shift": True},
        {"residual_resampling": True, "attention_resolutions": []},
        {"symmetric_padding": True, "time_embedding": "cosine_first", "norm_epsilon": 1e-5},
        {"norm_groups": 8, "channels": 24},
        {"norm_groups": 16, "channels": 64, "scale_shift": True, "residual_resampling": True},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_options(changes):
    assert_equal(*networks(SMALL | changes, 8), 8)


def test_labels_of_an_adm():
    own = SMALL | {
        "attention_resolutions": [8],
        "head_channels": 64,
        "scale_shift": True,
        "residual_resampling": True,
        "time_embedding": "cosine_first",
        "norm_epsilon": 1e-5,
    }
    assert_equal(*networks(own, 8, CLASSES), 8, torch.tensor([0, 9, -1]))
