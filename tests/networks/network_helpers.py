"""Networks for tests."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import Tensor, nn

from langevin.conditions.class_label import ClassLabel
from langevin.conditions.condition import Condition, Context
from langevin.errors import OptionError
from langevin.networks.network import Network
from langevin.networks.unet import UNet

CONF = Path(__file__).parents[2] / "conf"

TINY = {
    "channels": 32,
    "channel_multipliers": [1, 2],
    "blocks_per_level": 1,
    "attention_resolutions": [4],
    "head_channels": None,
    "dropout": 0.0,
}
"""A U-Net's own parameters, for images of size 8."""


def tiny(**changes) -> UNet:
    facts = {"in_channels": 2, "out_channels": 2, "image_size": 8, "condition": None}
    return UNet(**(facts | TINY | changes))


def preset(name: str, group: str = "model") -> tuple[type[Network], dict]:
    """Read conf/`group`/`name`.yaml: the class and its own parameters."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    return get_class(node.pop("_target_")), node


def refused(cls: type[nn.Module], **fields) -> list[tuple[str, str]]:
    """What a network's constructor says is wrong with its parameters, as the check of a config asks it."""
    try:
        with torch.device("meta"):
            cls(**fields)
    except OptionError as error:
        return list(error.found)
    return []


@torch.no_grad()
def randomize(module: nn.Module, seed: int = 0) -> None:
    """Fill every parameter at random so that signals keep their size: nothing stays zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.normal_(name.endswith("weight"), 0.1, generator=generator)  # a normalization's, or a bias


def labelled(num_classes: int = 10, dropout: float = 0.0):
    """A condition for a network's constructor."""
    return partial(ClassLabel, num_classes=num_classes, dropout=dropout)


def assert_same(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Both give the same output, and the same gradient of a mixture of it.

    That is, up to 1e-5 of the greatest value in float32, to 1e-10 in float64.
    """
    differences = {}
    for name, mine, expected in zip(("output", "gradient"), _outcome(ours, x), _outcome(theirs, x), strict=True):
        assert expected.std() > 0.1 or name == "gradient"
        differences[name] = float((mine - expected).abs().max() / expected.abs().max())
    print(", ".join(f"{name} {value:.1e}" for name, value in differences.items()))  # for peers.md
    assert max(differences.values()) < {torch.float32: 1e-5, torch.float64: 1e-10}[x.dtype]


def _outcome(network: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    output = network(x)
    mixture = torch.randn(output.shape, generator=torch.Generator().manual_seed(7)).to(output)
    (gradient,) = torch.autograd.grad((output * mixture).sum(), x)
    return output.detach(), gradient


def norms(network: nn.Module) -> list[tuple[int, float, int]]:
    """Groups, epsilon and width of every GroupNorm: an epsilon hardly shows where features are well scaled."""
    found = (module for module in network.modules() if "GroupNorm" in type(module).__name__)
    return sorted((module.num_groups, module.eps, len(module.weight)) for module in found)


def images(batch: int, size: int) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


class Sequence(Condition):
    """As a text encoder gives it: `cond["text"]`, (B, L, dim), by default nothing but a zero."""

    inputs = frozenset({"text"})
    has_dropout = False
    tokens_only = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, cond, batch):
        return Context(tokens=torch.zeros(batch, 1, self.dim) if cond is None else cond["text"])

    def null(self, cond):
        return {**cond, "text": torch.zeros_like(cond["text"])}

    def drop(self, cond, draw):
        return cond
