"""What the Python API's parameters say, as values of a command's options."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf

from langevin.config.validate import ConfigError, Mistake, options, unknown
from langevin.errors import UserError

Given = Mapping[str, tuple[str, Any]]
"""Values of options by their paths, each with the name of the parameter that it was given by."""


def of_sampler(
    sampler: str | None, steps: int | None, guidance: float | str | None
) -> tuple[list[str], dict[str, tuple[str, Any]]]:
    """The choices of a sampler and its guidance, and the values of their fields."""
    chosen = [] if sampler is None else [choice("sampler", sampler)]
    given: dict[str, tuple[str, Any]] = {"sampler.steps": ("steps", steps)}
    if isinstance(guidance, str):
        chosen.append(choice("guidance", guidance))
    elif guidance is not None:
        chosen.append("guidance=classifier_free")
        given["guidance.scale"] = ("guidance", guidance)
    return chosen, given


def common(seed: int, batch_size: int, device: str) -> dict[str, tuple[str, Any]]:
    """The values of those options that commands on trained models have in common.

    Raises:
        UserError: when there is no such device.
    """
    import torch

    kind, _, index = device.partition(":")
    try:
        if device != "auto":
            torch.zeros(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises all of these
        reason = str(error).partition("\n")[0]
        raise UserError(f"device is {device!r}; allowed: auto, cpu, or a GPU such as cuda:1 ({reason})") from error
    devices = f"{index}," if index and kind != "cpu" else 1
    return {
        "seed": ("seed", seed),
        "batch_size": ("batch_size", batch_size),
        "accelerator": ("device", kind),
        "devices": ("device", devices),
    }


def choice(group: str, name: str) -> str:
    """The override that chooses an option of a group, whose parameter has the group's name.

    Raises:
        UserError: when there is no such option.
    """
    if name not in options(group):
        raise UserError(f"{group} is {name!r}; {unknown(str(name), options(group))}")
    return f"{group}={name}"


def listed(name: str, overrides: Sequence[str]) -> list[str]:
    """Overrides as a list.

    Raises:
        UserError: when they are a text, whose letters would be taken for overrides.
    """
    if isinstance(overrides, str):
        raise UserError(f"{name} is {overrides!r}; allowed: a list of texts, such as [{overrides!r}]")
    return list(overrides)


def allowed(overrides: Sequence[str], roots: Sequence[str]) -> list[str]:
    """The overrides, if they are all of some groups or options.

    Raises:
        UserError: when one is of another.
    """
    found = listed("overrides", overrides)
    for override in found:
        if override.lstrip("+~").partition("=")[0].partition(".")[0] not in roots:
            raise UserError(f"overrides: {override!r} cannot be set here; allowed: those of {', '.join(roots)}")
    return found


@contextmanager
def by_parameters(cfg: DictConfig, given: Given) -> Iterator[None]:
    """Set what was given by parameters, and report mistakes in it under the parameters' names.

    Args:
        cfg: the config; changed in place.
        given: the values; what is None is left as it is.

    Raises:
        ConfigError: as the block, with the parameters' names.
    """
    given = {path: (name, value) for path, (name, value) in given.items() if value is not None}
    try:
        for path, (_, value) in given.items():
            OmegaConf.update(cfg, path, _plain(value), force_add=True)
        yield
    except ConfigError as error:
        named = [Mistake(given[path][0] if path in given else path, text) for path, text in error.mistakes]
        raise ConfigError(named) from error


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch, arrays of them, paths, and sequences as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple | range) else value
