"""The captions of an image in a file beside it: lines of a .txt file, or an entry of a .json file."""

import json
from collections.abc import Mapping
from typing import Any

MAX_BYTES = 2**20
"""The largest file of captions of one image that is read."""
_KEYS = ("text", "caption")


def captions_of_lines(text: str) -> list[str]:
    """One caption a line; empty lines do not count.

    Raises:
        ValueError: when there is none.
    """
    captions = [line.strip() for line in text.split("\n") if line.strip()]
    if not captions:
        raise ValueError("is an empty caption; write one, or remove the file")
    return captions


def captions_of_entry(entry: Mapping[str, Any]) -> list[str]:
    """The "text", else the "caption" of an object of JSON: a text, or a list of them.

    Raises:
        ValueError: when it has none, or one of them is empty.
    """
    value = next((entry[key] for key in _KEYS if key in entry), None)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError('has no "text" that is a caption or a list of captions')
    if not all(text.strip() for text in texts):
        raise ValueError("has an empty caption; write one, or remove it")
    return [text.strip() for text in texts]


def entry_of(text: str) -> dict[str, Any]:
    """The object of JSON that a text is.

    Raises:
        ValueError: when it is none.
    """
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON ({error})") from error
    if not isinstance(entry, dict):
        raise ValueError('is to be an object, such as {"text": "a red car"}')
    return entry
