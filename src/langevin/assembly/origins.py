"""What is known of the origin of a run's weights, where they were not all trained here; imports no Lightning."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from langevin.checkpoint import RECORD, find_checkpoint, read_checkpoint


def origin_of_run(cfg: DictConfig, checkpoint: Path | None) -> dict[str, Any]:
    """What is recorded of the origin of the weights that a run is made of, which may bind what uses them.

    They are those of the run that its codec names, and of the run that it starts from; or its own, once it has any.

    Args:
        cfg: the run's config, by `complete` and `find_initial`.
        checkpoint: what it is resumed from; None of a new run.

    Returns:
        texts, lists of texts, and numbers: the runs may be a stranger's. Where two runs differ, both texts.
    """
    places = [cfg.codec.get("run"), cfg.init.checkpoint if checkpoint is None else checkpoint]
    found: dict[str, Any] = {}
    for place in places:
        origin = {} if place is None else recorded_origin(find_checkpoint(Path(place)))
        found |= {name: both(found.get(name, value), value) for name, value in origin.items()}
    return found


def both(first: Any, second: Any) -> Any:
    """Two values of a record as one: the texts of both, or the first number."""
    if first == second or not isinstance(first, str | list) or not isinstance(second, str | list):
        return first
    return list(dict.fromkeys(text for each in (first, second) for text in ([each] if isinstance(each, str) else each)))


def recorded_origin(path: Path) -> dict[str, Any]:
    """What a checkpoint records of the origin of its weights."""
    origin = read_checkpoint(path)[RECORD].get("origin")
    found = origin.items() if isinstance(origin, Mapping) else ()
    return {name: value for name, value in found if isinstance(name, str) and is_plain(value)}


def is_plain(value: Any) -> bool:
    """Whether a value of a record is a text, a number, or a list of texts."""
    texts = value if isinstance(value, list) else [value]
    return isinstance(value, int | float) or all(isinstance(text, str) for text in texts)
