"""What the YAML files of conf say about the options in them: names, defaults, and the comments beside them.

The help of a command and the reference pages are made of these, so a fact about an option stands once, beside its
default. This imports yaml alone: the help of a command waits for nothing else.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

CONF = next(path for path in (Path(__file__).parents[1] / "conf", Path(__file__).parents[3] / "conf") if path.is_dir())
"""The folder of configs: inside of an installed package, beside `src` in a clone."""
REQUIRED = "???"


class Option(NamedTuple):
    """A value that can be set.

    Attributes:
        path: what is typed before "=", such as "edit.strength".
        default: its YAML text, such as "0.5"; "???" where a value must be given.
        comment: what it means; "" where the name says it.
    """

    path: str
    default: str
    comment: str


class Group(NamedTuple):
    """A group of parts, of which a command takes one or several.

    Attributes:
        name: such as "sampler".
        default: the part that is chosen by default, as YAML: "ddim", "null" or "[]".
        comment: what the group decides.
    """

    name: str
    default: str
    comment: str


class Part(NamedTuple):
    """One part of a group: one YAML file.

    Attributes:
        name: such as "ddim".
        comment: what it is, a sentence or more.
        options: its fields, with paths as they are typed, such as "sampler.eta".
        choices: what it chooses of other groups, such as ("schedule=edm",).
    """

    name: str
    comment: str
    options: list[Option]
    choices: tuple[str, ...]


def command_options(command: str) -> list[Option]:
    """A command's own options, such as `num_samples` of "sample"."""
    return list(_options(CONF / f"{command}.yaml", ""))


def command_comment(command: str) -> str:
    """What the head of a command's file says."""
    return _head((CONF / f"{command}.yaml").read_text())


def command_groups(command: str) -> list[Group]:
    """The groups of a command; what a group decides is said in train.yaml, for all commands."""
    said = {group.name: group.comment for group in _groups("train")}
    return [group._replace(comment=group.comment or said.get(group.name, "")) for group in _groups(command)]


def part_names(group: str) -> list[str]:
    """The names of a group's parts."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def part(group: str, name: str) -> Part:
    """What a part's file says, and the files that it builds upon."""
    path = CONF / group / f"{name}.yaml"
    text = path.read_text()
    is_global = "# @package _global_" in text
    # conf/guidance/none.yaml sets its own group to null, which chooses the part and is no field of it.
    options = (each for each in _options(path, "" if is_global else f"{group}.") if each.path != group)
    choices = tuple(
        f"{str(key).removeprefix('override').strip().lstrip('/')}={_flow(value)}"
        for entry in _defaults(text)
        if isinstance(entry, dict)
        for key, value in entry.items()
    )
    return Part(name, _head(text) or _comment_of_only_key(text), list(options), choices)


def first_sentence(comment: str) -> str:
    """The first sentence of a comment, without its full stop."""
    return " ".join(comment.split()).partition(". ")[0].rstrip(".")


def _groups(command: str) -> list[Group]:
    lines = (CONF / f"{command}.yaml").read_text().splitlines()
    node = yaml.compose("\n".join(lines))
    found = []
    for key, value in node.value:
        if key.value == "defaults":
            for entry in value.value:
                if isinstance(entry, yaml.MappingNode):
                    ((name, chosen),) = entry.value
                    found.append(Group(name.value, _text(lines, chosen), _comment(lines, chosen)))
    return found


def _options(path: Path, prefix: str) -> Iterator[Option]:
    """The options in a file, those that it takes over from files of its own folder first; the last default holds."""
    text = path.read_text()
    found: dict[str, Option] = {}
    for entry in _defaults(text):
        if isinstance(entry, str) and entry != "_self_" and path.parent != CONF:
            base = path.parent / f"{entry}.yaml"
            found |= {option.path: option for option in _options(base, prefix)}
    lines = text.splitlines()
    node = yaml.compose(text)
    for option in _leaves(lines, node, prefix) if isinstance(node, yaml.MappingNode) else ():
        held = found.get(option.path)
        found[option.path] = option._replace(comment=option.comment or (held.comment if held else ""))
    yield from found.values()


def _leaves(lines: list[str], node: yaml.MappingNode, prefix: str) -> Iterator[Option]:
    for key, value in node.value:
        if key.value == "defaults" or key.value.startswith("_"):
            continue
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _leaves(lines, value, f"{prefix}{key.value}.")
        else:
            yield Option(f"{prefix}{key.value}", _text(lines, value), _comment(lines, value))


def _defaults(text: str) -> list[object]:
    read = yaml.safe_load(text)
    return list(read.get("defaults", ())) if isinstance(read, dict) else []


def _text(lines: list[str], node: yaml.Node) -> str:
    """The value as it stands in the file."""
    start, end = node.start_mark, node.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column] or "null"
    return _flow(yaml.safe_load(yaml.serialize(node)))


def _flow(value: object) -> str:
    """A value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def _comment(lines: list[str], node: yaml.Node) -> str:
    """What stands behind a value in its line."""
    rest = lines[node.end_mark.line][node.end_mark.column :] if node.end_mark.line < len(lines) else ""
    return rest.partition("#")[2].strip()


def _head(text: str) -> str:
    """The comment at the top of a file: its lines, without "#" and without what Hydra reads there."""
    head = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            head.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(head)


def _comment_of_only_key(text: str) -> str:
    """Of a file such as conf/metrics/fid.yaml, which names its component: the comment beside the name."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return lines[0].partition("#")[2].strip() if lines else ""
