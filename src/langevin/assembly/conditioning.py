"""The conditions of a config."""

from omegaconf import DictConfig

from langevin.assembly.make import make, target_of
from langevin.conditions.condition import Condition, Several
from langevin.errors import UserError


def is_conditional(cfg: DictConfig) -> bool:
    """Whether the model is conditional."""
    return bool(cfg.get("conditions"))


def is_class_conditional(cfg: DictConfig) -> bool:
    """Whether a condition of the model reads the labels."""
    return any("label" in columns_of(cfg, name) for name in cfg.get("conditions") or {})


def columns_of(cfg: DictConfig, condition: str) -> frozenset[str]:
    """The columns that a condition of the model reads."""
    return getattr(target_of(cfg, f"conditions.{condition}"), "inputs", frozenset())


def computes_columns(cfg: DictConfig, condition: str) -> bool:
    """Whether a condition of the model computes columns of the samples themselves, see `Condition.derive`."""
    return bool(getattr(target_of(cfg, f"conditions.{condition}"), "derived", ()))


def is_derived(cfg: DictConfig) -> bool:
    """Whether any does."""
    return any(computes_columns(cfg, name) for name in cfg.get("conditions") or {})


def make_condition(cfg: DictConfig, *, num_classes: int | None, dim: int, **of_spec: int) -> Condition:
    """The config's conditions as one.

    Args:
        cfg: the config.
        num_classes: of the data; None without labels.
        dim: the size of the vectors that the network takes.
        **of_spec: what the spec of what is diffused offers, see `components.of_spec`.

    Raises:
        UserError: when one needs labels that the data does not have, or cannot be built.
    """
    parts = {}
    for name in cfg.conditions:
        path = f"conditions.{name}"
        if num_classes is None and "label" in columns_of(cfg, name):
            raise UserError(f"{path}: needs labels, but the data has none; leave it out")
        parts[str(name)] = make(cfg, path, num_classes=num_classes, dim=dim, **of_spec)
    if any(part.concat_channels > 0 for part in parts.values()):
        # A run's identity does not know the order, which decides which channels are whose.
        parts = dict(sorted(parts.items()))
    return Several(parts) if len(parts) > 1 else next(iter(parts.values()))
