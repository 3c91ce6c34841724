"""Whose an imported model is: what the files beside its weights say of its licence and of what it was made from."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from langevin.files import require_regular

ORIGIN = "origin.json"
"""The file of a run that keeps it."""
CARD, INDEX, CONFIG = "README.md", "model_index.json", "config.json"
RECORD_FILE = "langevin.json"
"""Where an export of ours keeps the record of the run."""
OF_CARD = ("license", "license_name", "license_link", "base_model")
"""The fields that model cards have for it; each holds a text or a list of texts."""
NAME = "_name_or_path"
"""What diffusers calls the place that a model was loaded from."""
HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
"""A name on a model hub; another place is a folder of somebody's machine."""
LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE")
LONGEST, FIELD = 100_000, 500
"""Characters of a file, and of a field, that are kept."""


def origin_of(place: Path) -> dict[str, Any]:
    """What is said of the origin of a model in its folder, and in the pipeline's that it is a part of: plain texts.

    Args:
        place: the folder or file that is imported.

    Returns:
        the card's fields, "name", and "license_text": those that are there. A file that cannot be read says nothing.
    """
    found: dict[str, Any] = {}
    folder = place if place.is_dir() else place.parent
    folders = [folder, *([folder.parent] if (folder.parent / INDEX).is_file() else [])]
    for each in folders:
        card = _front_matter(_text(each / CARD))
        said = {name: kept for name in OF_CARD if (kept := _kept(card.get(name))) is not None}
        if place.is_dir():
            name = _kept(_config(_text(each / CONFIG) or _text(each / INDEX)).get(NAME))
            said |= {"name": name} if isinstance(name, str) and HUB.fullmatch(name) else {}
        said |= _recorded(_config(_text(each / RECORD_FILE)).get("origin"))
        texts = (_text(each / file) for file in LICENCES)
        # Beside a file there may lie the licence of anything, unless a card says that a model is there.
        licence = next((text for text in texts if text), None) if place.is_dir() or said else None
        said |= {} if licence is None else {"license_text": licence}
        found = said | found
    return found


def _text(file: Path) -> str:
    try:
        with require_regular(file).open(encoding="utf-8") as opened:
            text = opened.read(LONGEST + 1)
    except (OSError, ValueError):
        return ""
    return text if len(text) <= LONGEST else ""


def _recorded(origin: Any) -> dict[str, Any]:
    """What an export of ours keeps of the origin of its weights: the same fields, and its licence's text."""
    if not isinstance(origin, dict):
        return {}
    kept = {name: _kept(origin.get(name)) for name in (*OF_CARD, "name")}
    text = origin.get("license_text")
    return {name: value for name, value in {**kept, "license_text": text}.items() if isinstance(value, str | list)}


def _front_matter(text: str) -> Mapping[str, Any]:
    """The fields between the two lines of dashes that a card begins with."""
    inner, closing, _ = text.removeprefix("---\n").partition("\n---")
    if not text.startswith("---\n") or not closing:
        return {}
    try:
        fields = yaml.safe_load(inner)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _config(text: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _kept(value: Any) -> str | list[str] | None:
    """A text, or a list of texts, where it is one of a sensible length."""
    if isinstance(value, list):
        texts = [each for each in map(_kept, value) if isinstance(each, str)]
        return texts[:FIELD] if texts else None
    return value if isinstance(value, str) and 0 < len(value) <= FIELD else None
