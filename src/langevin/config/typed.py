"""Slips on a command line that Hydra reports in words of its own, or not at all: found before it reads the line."""

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from langevin.config.describe import part_names
from langevin.config.overrides import parsed
from langevin.config.validate import unknown
from langevin.errors import UserError

SWITCHES = ("-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help", "--version", "-sc", "--shell-completion")
"""Hydra's flags without a value."""
CONFIG_DIRS = ("-cd", "--config-dir")
VALUED = (
    *CONFIG_DIRS,
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-i", "--info"),
    "--experimental-rerun",
)
"""Hydra's flags with one."""


def refuse_slips(arguments: Sequence[str], own: Collection[str], names: Collection[str], sweeps: bool) -> None:
    """Refuse a command line with flags that are none, options without values, parts that are none, or sweeps by chance.

    Args:
        arguments: the command line.
        own: the groups of the command.
        names: its own options.
        sweeps: whether it asks for a sweep (`-m`).

    Raises:
        UserError: of all of them.
    """
    found = list(_slips(arguments, own, names, sweeps))
    if len(found) == 1:
        raise UserError(found[0])
    if found:
        raise UserError("\n".join([f"{len(found)} mistakes on the command line:", *(f"  {each}" for each in found)]))


def _slips(arguments: Sequence[str], own: Collection[str], names: Collection[str], sweeps: bool) -> Iterator[str]:
    folders: list[Path] = []
    is_value = False  # of the flag before
    for argument, following in pairwise([*arguments, ""]):
        flag, equals, value = argument.partition("=")
        if is_value:
            is_value = False
        elif argument.startswith("-"):
            if flag in CONFIG_DIRS:
                folders.append(Path(value or following))
            if flag in VALUED:
                is_value = not equals and "=" not in following
            elif flag not in SWITCHES:
                name = flag.lstrip("-").replace("-", "_")
                yield f"{argument}: there is no such flag; options are given without dashes, as in {name}=VALUE"
        elif not equals and not argument.startswith("~"):
            such_as = f"checkpoint={argument}" if "checkpoint" in names else "data=digits"
            yield f"{argument}: has no value; options are given as NAME=VALUE, such as {such_as}"
        else:
            yield from _of_override(argument, own, folders, sweeps)


def _of_override(argument: str, own: Collection[str], folders: Sequence[Path], sweeps: bool) -> Iterator[str]:
    override, group = parsed(argument), argument.partition("=")[0].partition("@")[0]
    if override is None or override.is_delete():
        return
    if override.is_sweep_override():
        if not sweeps:
            yield f"{argument}: has several values; for a sweep over them add -m"
        elif group in own and override.is_choice_sweep():
            for each in override.sweep_string_iterator():
                yield from _of_override(f"{group}={each}", own, folders, sweeps)
        return
    chosen = override.value()
    known = part_names(group) if group in own else []
    known += [path.stem for folder in folders for path in (folder / group).glob("*.yaml")]
    for name in chosen if isinstance(chosen, list) else [chosen]:
        if group in own and isinstance(name, str) and name.removesuffix(".yaml") not in known:
            yield f"{group}={name}: {unknown(name, known)}"
