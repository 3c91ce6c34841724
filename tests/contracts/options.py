"""What conf/ holds, found by looking."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from langevin.config.types import TARGET
from langevin.config.validate import CONF, groups, options

COMMANDS = ("train", "sample", "evaluate")
FILES = sorted(CONF.rglob("*.yaml"))
OPTIONS = [(group, option) for group in groups() for option in options(group)]


def load(file: Path) -> dict[str, Any]:
    """A YAML file as it stands."""
    return yaml.safe_load(file.read_text()) or {}


def group_of(file: Path) -> str:
    """The group a file is an option of; empty for the commands' own files."""
    return file.parent.relative_to(CONF).as_posix().removeprefix(".")


def components(file: Path) -> Iterator[dict[str, Any]]:
    """The nodes of a file that name a class."""

    def walk(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if TARGET in node:
                yield node
            for child in node.values():
                yield from walk(child)

    return walk(load(file))


def chosen_groups(command: str) -> list[str]:
    """The groups that a command's own file names."""
    entries = [entry for entry in load(CONF / f"{command}.yaml")["defaults"] if isinstance(entry, dict)]
    return [group for entry in entries for group in entry]
