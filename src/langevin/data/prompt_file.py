"""Prompts of a file."""

import json
from pathlib import Path
from typing import Any

from langevin.errors import UserError

SUFFIXES = (".txt", ".jsonl")
"""Of files of prompts: one a line, or a JSON value a line."""
KEYS = ("prompt", "text")
"""Under which an object in such a line may have its prompt."""


def is_prompt_file(value: str) -> bool:
    """Whether an option's value names a file of prompts, by its ending; else it is a prompt."""
    return value.lower().endswith(SUFFIXES)


def read_prompts(path: str, option: str) -> list[str]:
    """Read the prompts of a UTF-8 file: a text file with one a line, or ``.jsonl``.

    A line of ``.jsonl`` is a text, or an object with the text under "prompt" or "text". Spaces around a prompt, and
    empty lines at the end, are no part of it.

    Args:
        path: of the file.
        option: the name of the option that gave `path`, for messages.

    Returns:
        the prompts, at least one, none of them empty.

    Raises:
        UserError: when there is no such file, it holds no prompts, or a line of it is none.
    """
    start = f"{option}={path}"
    try:
        text = Path(path).expanduser().read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{start}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        place = f"byte {error.start} of it is none"
        raise UserError(f"{start}: is not UTF-8 ({place}); save it as UTF-8") from error
    lines = [line.strip() for line in text.rstrip().split("\n")]
    if not any(lines):
        raise UserError(f"{start}: holds no prompts; allowed: one a line, at least one")
    is_json = path.lower().endswith(".jsonl")
    prompts = [_of_json(line) if is_json else line for line in lines]
    for number, prompt in enumerate(prompts, start=1):
        if not prompt:
            kind = 'a text, or an object with "prompt", a text' if is_json else "a prompt, which is not empty"
            raise UserError(f"{start}: line {number} holds none; allowed: {kind}")
    return [prompt for prompt in prompts if prompt]


def _of_json(line: str) -> str | None:
    """The prompt of a line; None where it has none."""
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = next((value[key] for key in KEYS if key in value), None)
    return value.strip() if isinstance(value, str) else None
