"""LPIPS."""

import functools
import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from langevin.errors import OptionError, UserError
from langevin.perceptual.perceptual import PerceptualDistance, distance_of_levels
from langevin.spec import DataSpec
from langevin.weights import read_weights

MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of ImageNet's colours in [-1, 1], as LPIPS rounds them."""
PREFIX = "features."
"""What the names of torchvision's convolutions begin with."""
MODELS_PAGE = "https://docs.pytorch.org/vision/stable/models.html"


class Backbone(NamedTuple):
    """One of torchvision's networks.

    Attributes:
        name: what it is called.
        file: of its weights IMAGENET1K_V1; behind the dash is how their sha256 begins.
        layers: makes its convolutional part, with the numbers of torchvision's layers, up to the last level.
        ends: how many of the layers each level takes, so that it ends in a rectifier.
        least: the smallest side of an image, in pixels, whose last level has a pixel left.
    """

    name: str
    file: str
    layers: Callable[[], list[nn.Module]]
    ends: tuple[int, ...]
    least: int

    @property
    def sha256(self) -> str:
        """How the sha256 of the file begins."""
        return self.file.rpartition("-")[2].partition(".")[0]


def _vgg16() -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for stage, (width, convolutions) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        layers += [nn.MaxPool2d(2)] if stage else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return layers


def _alexnet() -> list[nn.Module]:
    return [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]


class Fire(nn.Module):
    """SqueezeNet's block (Iandola et al. 2016, arXiv 1602.07360): few channels, then many by two convolutions.

    Args:
        channels: of its input.
        squeezed: the few.
        expanded: of each of the two.
    """

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, 2 expanded, H, W), not below 0."""
        few = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(few), self.expand3x3(few)], 1).relu()


def _squeezenet() -> list[nn.Module]:
    pool = functools.partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
    return [
        *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool()),
        *(Fire(64, 16, 64), Fire(128, 16, 64), pool()),
        *(Fire(128, 32, 128), Fire(256, 32, 128), pool()),
        *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
    ]


BACKBONES = {
    "vgg": Backbone("VGG16", "vgg16-397923af.pth", _vgg16, (4, 9, 16, 23, 30), 16),
    "alex": Backbone("AlexNet", "alexnet-owt-7be5be79.pth", _alexnet, (2, 5, 8, 10, 12), 31),
    "squeeze": Backbone("SqueezeNet 1.1", "squeezenet1_1-b8a52dc0.pth", _squeezenet, (2, 5, 8, 10, 11, 12, 13), 17),
}
"""By the names that LPIPS has for them."""


class LPIPSDistance(PerceptualDistance):
    """Learned perceptual image patch similarity, version 0.1, with weights of channels learnt from people's choices.

    Zhang et al. 2018 (arXiv 1801.03924): the distance of unit vectors of activations at five levels of a classifier of
    ImageNet (seven of SqueezeNet). The weights of the channels ("lin") come with torchmetrics, those of the classifier
    with torchvision. Values equal torchmetrics', which adds 1e-8 to the square of a vector's length; the authors' code
    adds 1e-10 to the length, and differs in the last digits. A grey image counts as one of three equal channels.

    Args:
        net: the classifier: vgg, which is usual in losses, alex, which agrees best with people, or squeeze.
        weights: the file of torchvision's weights of it (a state dict: .pth or .safetensors); None: torch hub's cache,
            where torchvision puts them.

    Raises:
        OptionError: when there are no such weights.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: Literal["vgg", "alex", "squeeze"] = "vgg", weights: str | None = None) -> None:
        super().__init__()
        self.net = net
        self.backbone = BACKBONES[net]
        self.path = self._find(weights)
        with torch.random.fork_rng(devices=[]):  # the initial weights must not move the run's random numbers
            self.layers = nn.Sequential(*self.backbone.layers())
        try:
            state = read_weights(self.path)
            own = {name.removeprefix(PREFIX): each for name, each in state.items() if name.startswith(PREFIX)}
            self.layers.load_state_dict(own)
        except UserError as error:
            raise self._refused(weights, str(error)) from error
        except RuntimeError as error:
            raise self._refused(weights, "the names or shapes in it are those of another network") from error
        self.heads = nn.ParameterList(_heads(net, len(self.backbone.ends)))
        # Constants, which are no weights.
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def _find(self, weights: str | None) -> Path:
        cached = Path(torch.hub.get_dir()) / "checkpoints" / self.backbone.file
        path = cached if weights is None else Path(weights).expanduser()
        if not path.is_file():
            raise self._refused(weights, f"there is no {path}" if weights is None else "there is no such file")
        return path

    def _refused(self, weights: str | None, reason: str) -> OptionError:
        given, name, file = "null" if weights is None else weights, self.backbone.name, self.backbone.file
        return OptionError(
            "weights",
            f"is {given}, and {reason}; allowed: the path of torchvision's weights of {name}, the file {file}, or of "
            f"its state dict as .safetensors; they are listed at {MODELS_PAGE}",
        )

    @functools.cached_property
    def official(self) -> bool:
        """Whether the weights are those of the literature, by the sha256 of the file, which is read for it."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest().startswith(self.backbone.sha256)

    def check(self, spec: DataSpec) -> None:
        """Refuse what is no image, and images of which no activations are left, see the base class."""
        shape = spec.shape
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise OptionError("net", f"is {self.net}; it compares images of 1 or 3 channels, and these are {shape}")
        if min(shape[1:]) < self.backbone.least:
            sides = ", ".join(f"{net} from {each.least}" for net, each in BACKBONES.items())
            raise OptionError(
                "net", f"is {self.net}, and the images are of {shape[1]} x {shape[2]} pixels; allowed: {sides} a side"
            )

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """See the base class."""
        with torch.no_grad():
            expected = self.activations(target)
        return distance_of_levels(self.activations(x), expected, list(self.heads))

    def activations(self, x: Tensor) -> list[Tensor]:
        """The activations (B, C, h, w) of each level, of images (B, 1 or 3, H, W) in [-1, 1]."""
        x = (x - self.mean) / self.deviation  # grey becomes three channels here
        found = []
        for end, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if end in self.backbone.ends:
                found.append(x)
        return found


def _heads(net: str, levels: int) -> Sequence[Tensor]:
    """The weights of the channels of each level, as torchmetrics' package holds them: (C,) each."""
    spec = importlib.util.find_spec("torchmetrics")
    assert spec is not None
    assert spec.origin is not None
    state = read_weights(Path(spec.origin).parent / "functional" / "image" / "lpips_models" / f"{net}.pth")
    return [state[f"lin{level}.model.1.weight"].flatten() for level in range(levels)]
