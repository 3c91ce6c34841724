"""The alignment with DINOv2's patches, by the formula in float64."""

import pytest
import torch
from diffusion_helpers import normal
from torch import nn

from langevin.diffusion.auxiliary import Seen
from langevin.diffusion.dinov2_alignment import DINOv2Alignment
from langevin.errors import OptionError
from langevin.networks.dit import DiT
from langevin.spec import DataSpec


class Patches(nn.Module):
    """Stands in for `DINOv2Patches`: one token for each 2 x 2 pixels."""

    channels = 5

    def __init__(self):
        super().__init__()
        self.network = nn.Conv2d(3, 5, 2, 2)

    def forward(self, x):
        return self.network(x)


def aligned(**options):
    torch.manual_seed(0)
    own = {"patch_size": 2, "width": 32, "depth": 2, "heads": 2, "checkpointing": False}
    network = DiT(in_channels=3, out_channels=3, image_size=8, condition=None, **own)
    asked = []
    loader = {"load_dinov2": lambda option, value: asked.append((option, value)) or Patches()}
    teacher = DINOv2Alignment.read({"model": "dinov2-vit-s-14"}, loader)
    assert asked == [("model", "dinov2-vit-s-14")]
    return DINOv2Alignment(network, teacher, "dinov2-vit-s-14", width=16, **options)


def test_it_is_minus_the_cosine_of_each_patch_and_trains_the_perceptron_alone():
    term = aligned()
    x, hidden = normal(3, 3, 8, 8, seed=1, dtype=torch.float32), normal(3, 32, 4, 4, seed=2, dtype=torch.float32)
    hidden.requires_grad_()
    found = term(Seen(x, x, torch.zeros(3), None, None, {"block_2": hidden}))
    cosines = torch.zeros(3, dtype=torch.float64)
    for row in range(4):
        for column in range(4):
            square = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].double().flatten(1)
            patch = square @ term.frozen_encoder.network.weight.double().flatten(1).T
            patch = patch + term.frozen_encoder.network.bias.double()
            own = term.projector(hidden[:, :, row, column]).double()
            cosines += (own * patch).sum(1) / (own.square().sum(1) * patch.square().sum(1)).sqrt() / 16
    torch.testing.assert_close(found.double(), -cosines, rtol=1e-4, atol=1e-6)
    found.sum().backward()
    assert hidden.grad.abs().max() > 0
    assert [name for name, weight in term.named_parameters() if weight.grad is None] == [
        "frozen_encoder.network.weight",
        "frozen_encoder.network.bias",
    ]
    assert {name.partition(".")[0] for name in term.state_dict()} == {"projector"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (DataSpec.of_images(2, 8, None), "which sees images, and these are of (2, 8, 8); allowed: images of 1 channel"),
        (DataSpec((4, 8, 8), None, DataSpec.of_images(3, 8, None).modality), "and what is diffused is no image"),
    ],
)
def test_latents_and_other_channels_are_refused(spec, words):
    with pytest.raises(OptionError) as raised:
        aligned().check(spec)
    ((field, text),) = raised.value.found
    assert (field, text.startswith("is dinov2-vit-s-14, ")) == ("model", True)
    assert words in text


def test_grey_images_and_those_in_colour_are_taken():
    for channels in (1, 3):
        aligned().check(DataSpec.of_images(channels, 8, None))
