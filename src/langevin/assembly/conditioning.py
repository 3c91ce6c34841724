"""The conditions of a config."""

from typing import Any

from omegaconf import DictConfig

from langevin.assembly.make import make, target_of
from langevin.conditions.condition import Condition, Several
from langevin.conditions.hint import Hint
from langevin.config.validate import Mistake
from langevin.data.source import Source
from langevin.errors import UserError
from langevin.images import HINT, SIZE
from langevin.text.encoder import COLUMNS, TEXT

CAPTION = "caption"
"""The column of a source that has captions of its own."""


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
    return bool(derived_columns(cfg, condition))


def derived_columns(cfg: DictConfig, condition: str) -> frozenset[str]:
    """The columns that it computes."""
    derived_with = getattr(target_of(cfg, f"conditions.{condition}"), "derived_with", None)
    return frozenset() if derived_with is None else derived_with(cfg.conditions[condition])


def transformed_columns(cfg: DictConfig, condition: str) -> frozenset[str]:
    """The columns that say how a condition of the model transforms samples, see `Condition.transform`."""
    return getattr(target_of(cfg, f"conditions.{condition}"), "transformed", frozenset())


def reads_hints(cfg: DictConfig, condition: str | None = None) -> bool:
    """Whether a condition of the model, or any, reads hints that come with the data."""
    names = (cfg.get("conditions") or {}) if condition is None else [condition]
    return any(HINT in columns_of(cfg, name) - derived_columns(cfg, name) for name in names)


def needs_images(cfg: DictConfig, condition: str) -> str | None:
    """Why a condition of the model cannot go with latents, of whose images nothing is kept; None where it can."""
    if computes_columns(cfg, condition):
        return "is computed of the images, of which only latents are kept; leave it out, or take codec=identity"
    if transformed_columns(cfg, condition):
        return "transforms images, of which only latents are kept; leave it out, or take codec=identity"
    if reads_hints(cfg, condition):
        return "reads hints of the size of the images, and what is diffused is their latents; take codec=identity"
    return None


def follows_images(cfg: DictConfig) -> bool:
    """Whether any condition reads what is computed of the samples, or hints that come with them."""
    return reads_hints(cfg) or any(computes_columns(cfg, name) for name in cfg.get("conditions") or {})


def reads_text(cfg: DictConfig, condition: str) -> bool:
    """Whether a condition of the model reads captions."""
    return TEXT in columns_of(cfg, condition)


def is_text_conditional(cfg: DictConfig) -> bool:
    """Whether a condition of the model reads captions."""
    return any(reads_text(cfg, name) for name in cfg.get("conditions") or {})


def unread_groups(cfg: DictConfig) -> list[str]:
    """What the config has for captions, where no condition reads them.

    Captions by which samples are held out of training are of use without, to a model that text is compared with.
    """
    if is_text_conditional(cfg):
        return []
    groups = [name for name in ("captions", "text") if cfg.get(name) is not None]
    return [name for name in groups if not cfg[name].get("held_out")]


def varies_size(cfg: DictConfig) -> bool:
    """Whether the config's loader gives batches of several sizes: it then says what divides them."""
    return "multiple_of" in (cfg.get("loader") or {})  # its class is not looked at, which imports Lightning


def mistakes_of_data(cfg: DictConfig, name: str, condition: Condition, data: Source) -> list[Mistake]:
    """What is wrong with a condition of the model beside the data.

    Args:
        cfg: the config.
        name: of the condition in it.
        condition: built.
        data: the source.
    """
    found = []
    if lacking := lacking_columns(cfg, condition, data.columns):
        found.append(Mistake(f"conditions.{name}", lacking))
    if "trainer" not in cfg:  # where nothing is transformed
        return found
    if condition.transformed and reads_hints(cfg):
        text = "transforms images, but not the hints that come with them; allowed: hints that are computed of images"
        found.append(Mistake(f"conditions.{name}", text))
    if condition.mirrors and data.flip:
        text = f"is true, and conditions.{name} mirrors images too, of which alone the model is told; allowed: false"
        found.append(Mistake("data.flip", text))
    return found


def lacking_columns(cfg: DictConfig, condition: Condition, columns: frozenset[str]) -> str | None:
    """What is wrong with a condition that reads columns which the data does not have; None where it has them.

    Args:
        cfg: the config; it says whether captions are written of the data.
        condition: one of the model.
        columns: of the data.
    """
    if CAPTION in columns or cfg.get("captions") is not None:
        columns |= frozenset(COLUMNS)
    if varies_size(cfg) or "trainer" not in cfg:  # what is not told is whole
        columns |= {SIZE}
    lacking = sorted(condition.inputs - condition.derived - condition.transformed - columns)
    if not lacking:
        return None
    if TEXT in lacking:
        return (
            "needs captions, which this data does not have; name the column of data=parquet (data.caption), read those "
            "of data=tar_shards (data.captions=true), or take data=captioned, or captions=templates"
        )
    if lacking == [HINT]:
        return (
            "reads hints that come with the data, and this data has none; take data=image_folder or data=captioned "
            "with a.control.png beside a.png, or hints that are computed, such as kind=edges"
        )
    if lacking == [SIZE]:
        return "tells how images were cropped, and these are all squares; take loader=buckets, or leave it out"
    text = f"needs the {' and the '.join(lacking)} of each sample, which this data does not supply"
    return f"{text}; leave it out, or take other data"


def hint_mistakes(network: Any, sides: tuple[int | None, int | None] | None) -> list[Mistake]:
    """What is wrong with the size of the hints that a network takes: it is to be that of the images.

    Args:
        network: built; None where it could not be.
        sides: of images and of what is diffused; None where they are not known.
    """
    if network is None or sides is None:
        return []
    side, small = sides
    taken = {part.image_size for part in network.modules() if isinstance(part, Hint)} - {side}
    if not taken or side is None or small is None:
        return []
    widths = (side // small).bit_length()
    why = "each after the first halves the hints"
    allowed = f"model.control=true and model.control_channels a list of {widths}, since {why}"
    text = f"is of side {', '.join(map(str, taken))} in this network, and images are of side {side}"
    return [Mistake("conditions.hint", f"{text}; allowed: {allowed}")]


def make_condition(cfg: DictConfig, *, num_classes: int | None, dim: int, **of_spec: Any) -> Condition:
    """The config's conditions as one.

    Args:
        cfg: the config.
        num_classes: of the data; None without labels.
        dim: the size of the vectors that the network takes.
        **of_spec: what the spec of what is diffused offers, see `components.of_spec`.

    Raises:
        UserError: when one needs labels or captions that the data does not have, or cannot be built.
    """
    parts = {}
    text = {} if cfg.get("text") is None else {"text": make(cfg, "text", **of_spec)}
    for name in cfg.conditions:
        path = f"conditions.{name}"
        if num_classes is None and "label" in columns_of(cfg, name):
            raise UserError(f"{path}: needs labels, but the data has none; leave it out")
        parts[str(name)] = make(cfg, path, num_classes=num_classes, dim=dim, **text, **of_spec)
    if any(part.concat_channels > 0 for part in parts.values()):
        # A run's identity does not know the order, which decides which channels are whose.
        parts = dict(sorted(parts.items()))
    return Several(parts) if len(parts) > 1 else next(iter(parts.values()))
