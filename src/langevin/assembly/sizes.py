"""Checks, without allocating it, that a network from a stored config has the sizes of its stored weights."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from langevin.assembly.components import make_network, make_process
from langevin.assembly.meta import without_values
from langevin.assembly.tasks import task_of
from langevin.config.stored import targets
from langevin.config.types import TARGET
from langevin.errors import UserError
from langevin.spec import DataSpec

TWICE = 2
"""How often a constructor may put a parameter into a module, for each that a checkpoint holds."""
TABLES = 2**30
"""Bytes of what a network computes itself besides its weights, such as the positions of patches."""
NAMED = 3
"""How many tensors are named in a message."""


class MisfitError(UserError):
    """A network does not match some weights; the message names the differences, but not the file."""


def require_held(weights: Iterable[Tensor], size: int) -> None:
    """Check that stored tensors do not claim to be larger than their file.

    Args:
        weights: the tensors.
        size: of the file that holds them, in bytes.

    Raises:
        MisfitError: when they do.
    """
    if sum(tensor.numel() * tensor.element_size() for tensor in weights) > size:
        raise MisfitError("the weights claim to be larger than the whole file")


def require_sizes(cfg: DictConfig, spec: DataSpec, weights: Mapping[str, Tensor]) -> None:
    """Check that a network has exactly the weights that were stored for it, before allocating anything.

    A network whose class is not in our conf is not checked: it may not be buildable without memory, and the user has
    named it in `trust`.

    Args:
        cfg: the config of the network, whose structure is valid.
        spec: of what it diffuses.
        weights: those stored, by their names.

    Raises:
        MisfitError: when the names or the shapes differ.
        UserError: when the network cannot be built.
    """
    group = task_of(cfg).network
    if cfg[group][TARGET] not in targets(group):
        return
    process = make_process(cfg, spec.image_size)  # its numbers are real, not on "meta"
    fitting(group, lambda: make_network(cfg, spec, process), weights)


def fitting(group: str, build: Callable[[], Any], weights: Mapping[str, Tensor]) -> Any:
    """A module without values that has exactly the weights that were stored for it.

    Args:
        group: that chooses it, for messages.
        build: makes it; it is stopped where it makes many more parameters than are stored.
        weights: those stored, by their names.

    Raises:
        MisfitError: when the names or the shapes differ.
        UserError: when it cannot be built.
    """
    left = TWICE * len(weights)

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise UserError(f"has more than the {len(weights)} tensors that are stored")

    hook = register_module_parameter_registration_hook(count)
    try:
        with without_values():
            module = build()
    finally:
        hook.remove()
    refuse_misfit(group, module.state_dict(), weights)
    tables = sum(buffer.numel() * buffer.element_size() for buffer in module.buffers())
    if tables > TABLES:
        raise MisfitError(f"{group}: has tables of {tables} bytes beside its weights; allowed: at most {TABLES}")
    return module


def refuse_misfit(group: str, described: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Check that the weights that a config describes are those that are stored.

    Raises:
        MisfitError: when their names or shapes differ.
    """
    if different := differences(described, stored):
        more = f", and {len(different) - NAMED} more" if len(different) > NAMED else ""
        raise MisfitError(f"{group}: {'; '.join(different[:NAMED])}{more}")


def differences(described: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> list[str]:
    """How the weights that a config describes differ from those that are stored, in names and shapes."""
    found = []
    for name in dict.fromkeys([*described, *stored]):
        if name not in stored:
            found.append(f"{name} is not stored")
        elif name not in described:
            found.append(f"{name} is stored, but is no weight of it")
        elif described[name].shape != stored[name].shape:
            shapes = tuple(described[name].shape), tuple(stored[name].shape)
            found.append(f"size mismatch: {name} is {shapes[0]} by the config, {shapes[1]} as stored")
    return found
