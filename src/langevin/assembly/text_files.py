"""The files of a config's text encoder; imports no Lightning."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import nn

from langevin.assembly.make import contradicted, mistakes_of, target_of
from langevin.config.types import TARGET, plain
from langevin.config.validate import ConfigError, Mistake, structure
from langevin.errors import UserError
from langevin.text.encoder import TextEncoder
from langevin.text.frozen import FrozenTextEncoder

OWN_TEXT = "text"
"""The folder of a run that holds its encoder's files, where it does."""


def encoder_of(network: nn.Module) -> TextEncoder | None:
    """What encodes the texts of a network's conditions, the same for all; None where it is conditioned on none."""
    return next((part for part in network.modules() if isinstance(part, TextEncoder)), None)


def frozen_encoder_of(network: nn.Module) -> FrozenTextEncoder | None:
    """The same where it is another library's, read from files; else None."""
    encoder = encoder_of(network)
    return encoder if isinstance(encoder, FrozenTextEncoder) else None


def find_own(cfg: DictConfig, run: Path) -> None:
    """Have a stored config take its text encoder from its run's folder, wherever that is now, if it is there."""
    node = cfg.get("text")
    if isinstance(node, DictConfig) and "path" in node and (run / OWN_TEXT).is_dir():
        node.path = str(run / OWN_TEXT)


def complete(cfg: DictConfig) -> list[Mistake]:
    """Write into a config what the files of its text encoder are: their digest, and the sizes of what it gives.

    So a run's config says what it was trained with, wherever that lies, and a model can be built without them.

    Returns:
        the mistakes found; where there are any, the config is as it was.
    """
    node = cfg.get("text")
    # What is wrong with its structure is reported with the rest of the config's.
    if node is None or structure(OmegaConf.create({"text": plain(node)}), {}, (), ["text"]):
        return []
    try:
        options = {name: value for name, value in plain(node).items() if name != TARGET}
        found = target_of(cfg, "text").found(options)  # type: ignore[attr-defined]
    except ConfigError as error:
        return error.mistakes
    except UserError as error:
        return mistakes_of(cfg, "text", error)
    mistakes = contradicted(cfg, "text", f"text.path={node.get('path')}", found)
    if not mistakes:
        node.update(found)
    return mistakes


def move_encoder(network: nn.Module, path: str | None) -> None:
    """Read a network's text encoder from another place than it was trained with.

    Args:
        network: the network.
        path: of the same files; None: they are where they were.

    Raises:
        ConfigError: when it has no encoder that is read from files.
    """
    if path is None:
        return
    if (encoder := frozen_encoder_of(network)) is None:
        text = f"is {path}; allowed with a model whose text encoder is read from files, and this has none"
        raise ConfigError([Mistake("text.path", text)])
    encoder.path = path
