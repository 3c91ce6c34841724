"""The text of `--help`, made of what the YAML files say about their options; it imports neither Hydra nor torch."""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

from langevin.config.describe import (
    REQUIRED,
    Option,
    command_comment,
    command_groups,
    command_options,
    first_sentence,
    part,
    part_names,
)
from langevin.errors import UserError
from langevin.visible import ending_with_reader

FLAGS = ("-h", "--help")
WIDEST = 120
NAMES = 34
"""The columns for the names of options; a longer name has a line of its own."""


def is_wanted(arguments: Iterable[str]) -> bool:
    """Whether a command line asks for help."""
    return any(argument in FLAGS for argument in arguments)


@ending_with_reader()
def show(command: str, arguments: Sequence[str]) -> None:
    """Print the help of a command, or of those groups and parts that the command line names beside --help.

    Args:
        command: "train", "sample", "evaluate" or "convert".
        arguments: the command line, such as ["--help", "sampler", "schedule=cosine"].

    Raises:
        UserError: when it names something else.
    """
    topics = [argument for argument in arguments if argument not in FLAGS]
    own = [group.name for group in command_groups(command)]
    texts = []
    for topic in topics:
        group, equals, name = topic.partition("=")
        if group not in own:
            raise UserError(f"--help {topic}: allowed beside --help: GROUP or GROUP=PART; groups: {', '.join(own)}")
        if equals and name not in part_names(group):
            raise UserError(f"--help {topic}: parts of {group}: {', '.join(part_names(group))}")
        texts.append(of_part(group, name) if equals else of_group(command, group))
    print("\n\n".join(texts) if texts else of_command(command))


def of_command(command: str) -> str:
    """What a command does, its own options, and the groups that it takes parts of."""
    about, _, usage = command_comment(command).partition("\n")
    options = [_row(*described(option)) for option in command_options(command)]
    groups = [
        _row(f"{group.name}={group.default}", f"{group.comment}: {', '.join(part_names(group.name))}")
        for group in command_groups(command)
    ]
    return "\n".join(
        [
            _wrapped(f"langevin {command}: {about[0].lower()}{about[1:]}".rstrip(".")),
            "",
            *usage.splitlines(),
            "",
            "Options, as NAME=VALUE:",
            *options,
            "",
            "Groups, as GROUP=PART, and fields of a part, as GROUP.FIELD=VALUE:",
            *groups,
            "",
            _wrapped(f"langevin {command} --help GROUP          the parts of a group, a line each"),
            _wrapped(f"langevin {command} --help GROUP=PART     the fields of a part, with defaults"),
            _wrapped(f"langevin {command} ... --cfg job         the composed config, every field with its value"),
            _wrapped(f"langevin {command} -m GROUP=A,B X=1,2    a sweep over all combinations"),
        ]
    )


def of_group(command: str, group: str) -> str:
    """The parts of a group, a line each."""
    about = next(each for each in command_groups(command) if each.name == group)
    rows = [_row(f"{group}={name}", first_sentence(part(group, name).comment)) for name in part_names(group)]
    several = f"; several as {group}=[A,B]" if about.default == "[]" else ""
    return "\n".join([f"{group}: {about.comment} (default: {about.default}{several})", "", *rows])


def of_part(group: str, name: str) -> str:
    """What a part is, what it chooses, and its fields."""
    about = part(group, name)
    lines = [f"{group}={name}", *(_wrapped(line, "  ") for line in about.comment.splitlines())]
    if about.choices:
        lines += ["", "Chooses:", _wrapped(" ".join(about.choices), "  ")]
    if about.options:
        lines += ["", "Sets:" if about.choices else "Fields:", *(_row(*described(each)) for each in about.options)]
    return "\n".join(lines)


def described(option: Option) -> tuple[str, str]:
    """An option and its default as one would type it, and what it means."""
    if option.default == REQUIRED:
        return f"{option.path}=...", f"{option.comment}; must be given"
    return f"{option.path}={option.default}", option.comment


def width() -> int:
    """The columns to fill: those of the terminal, if it is one, and at most `WIDEST`."""
    return min(shutil.get_terminal_size().columns, WIDEST) if sys.stdout.isatty() else WIDEST


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, width(), initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False)


def _row(name: str, text: str) -> str:
    """A name, and beside it what it means, in lines of the terminal's width."""
    start = f"  {name}"
    if len(start) + 2 > NAMES and text:
        return f"{start}\n{_row('', text)}"
    if not text:
        return start
    column = " " * NAMES
    filled = textwrap.fill(text, max(width(), NAMES + 30), initial_indent=column, subsequent_indent=column)
    return start + filled[len(start) :]
