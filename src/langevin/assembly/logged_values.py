"""What a run logs, known from its config alone, so that a name that nothing logs is refused before data is read."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig

from langevin.assembly.make import target_of
from langevin.assembly.tasks import Task
from langevin.config.validate import Mistake

ANY = ("*",)
"""The names of a part of a user's own that does not declare them."""
BESIDE, SPEED = ("grad_norm", "learning_rate"), "images_per_second"
"""What a run logs as train/... beside the terms of its loss, and what its progress bar does."""
RETURNED = "optimized_metric"
"""The option that names the value that training returns."""


def unlogged(cfg: DictConfig, task: Task) -> Iterator[Mistake]:
    """The options that name a value which nothing in the run logs.

    Args:
        cfg: a training config of sound structure.
        task: its task.
    """
    callbacks = cfg.get("callbacks") or {}
    asked = {f"callbacks.{name}.monitor": node.get("monitor") for name, node in callbacks.items()}
    asked = {path: name for path, name in asked.items() if str(name).startswith(("val/", "eval/"))}
    asked[RETURNED] = cfg.get(RETURNED)
    for path, name in asked.items():
        if name is None:
            continue
        known = list(logged_names(cfg, task))
        allowed = [each for each in known if path == RETURNED or not each.startswith("train/")]
        if any(fnmatchcase(name, each) or fnmatchcase(each, name) for each in allowed):
            continue
        source, remedy = name.partition("/")[0], ""
        if not any(each.startswith(f"{source}/") for each in known):
            remedies = {
                "val": "there is no validation: set trainer.val_check_interval, at most trainer.max_steps, with data "
                "that has a test split; ",
                "eval": "there is no evaluation: choose metrics=[...]; ",
            }
            remedy = remedies.get(source, "")
        yield Mistake(path, f"is {name}, which nothing logs; {remedy}allowed: {', '.join(allowed) or 'null alone'}")


def logged_names(cfg: DictConfig, task: Task) -> Iterator[str]:
    """The names of the values that a run logs; `*` stands for the name of the features and the like."""
    terms = (*getattr(target_of(cfg, "objective"), "logs", ANY), *map(str, cfg.get("auxiliaries") or ()))
    yield from (f"train/{name}" for name in (*terms, *BESIDE))
    if "progress" in (cfg.get("callbacks") or {}):
        yield f"train/{SPEED}"
    interval = cfg.trainer.val_check_interval
    if interval is not None and interval <= cfg.trainer.max_steps:
        yield from (f"val/{name}" for name in terms)
        for name in cfg.get("likelihoods") or {}:
            parts = getattr(target_of(cfg, f"likelihoods.{name}"), "parts", ANY)
            yield from (f"val/{name}", *(f"val/{name}/{part}" for part in parts))
    for name in cfg.get("metrics") or {}:
        metric: Any = target_of(cfg, f"metrics.{name}")
        for report in getattr(metric, "reports", ANY):
            yield f"eval/{report.replace('@N', f'@{cfg.evaluation.num_samples}')}"
