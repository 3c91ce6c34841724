"""Which images a run is trained on: identified by their content, not by their path."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langevin.files import require_regular

FILE = "data.json"
"""Of a run's folder: its `Content`."""
SEVERAL = 3
"""How many classes are named in a message."""


@dataclass(frozen=True)
class Split:
    """One split's images as they are stored for training, decoded, cropped and resized.

    Attributes:
        number: of images.
        class_names: a name for each class, or None when the images are unlabelled.
        sha256: of the pixels, labels, class names and captions, see `langevin.data.cache`.
    """

    number: int
    class_names: tuple[str, ...] | None
    sha256: str


@dataclass(frozen=True)
class Content:
    """The data of a run.

    Attributes:
        splits: by their names, "train" and perhaps "test".
    """

    splits: Mapping[str, Split]

    @property
    def sha256(self) -> str:
        """One digest of all: equal exactly when the data is."""
        digests = {name: split.sha256 for name, split in self.splits.items()}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return {"sha256": self.sha256, "splits": {name: asdict(split) for name, split in self.splits.items()}}


def read_content(run_dir: Path) -> Content | None:
    """The data that a run's folder records; None where it records none, or what it records cannot be read."""
    try:
        splits = json.loads(require_regular(run_dir / FILE).read_bytes())["splits"]
        return Content({name: _split(**fields) for name, fields in splits.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def class_names(run_dir: Path) -> tuple[str, ...] | None:
    """The names of the classes that a run's folder records, in the order of their numbers; None where it has none."""
    content = read_content(run_dir)
    names = [split.class_names for split in content.splits.values()] if content is not None else []
    return next((each for each in names if each is not None and all(isinstance(name, str) for name in each)), None)


def labelled(labels: Iterable[int] | None, names: Sequence[str] | None) -> list[str] | None:
    """What samples of some classes are labelled with: a class's name, or its number where that is not known.

    Args:
        labels: of each sample; None where they have none, and then nothing is.
        names: of the classes.
    """
    known = range(len(names or ()))
    return None if labels is None else [names[each] if names and each in known else str(each) for each in labels]


def differences(old: Content, new: Content, before: str = "in the run", after: str = "now") -> list[str]:
    """How two runs' data differ, a line each; none where it is the same.

    Args:
        old: what one was trained on.
        new: what the other is.
        before: how messages refer to the old one.
        after: how messages refer to the new one.
    """
    lines: list[str] = []
    for name in dict.fromkeys([*old.splits, *new.splits]):
        a, b = old.splits.get(name), new.splits.get(name)
        if a == b:
            continue
        changes = []
        if a is None or b is None or a.number != b.number:
            has, have = ("none" if split is None else f"{split.number:,}" for split in (a, b))
            changes.append(f"{name} images: {has} {before}, {have} {after}")
        if a is not None and b is not None and a.class_names != b.class_names:
            changes.append(_of_classes(a.class_names, b.class_names, before, after))
        if a is not None and b is not None and not changes:
            digests = f"sha256 {a.sha256[:8]} {before}, {b.sha256[:8]} {after}"
            changes.append(
                f"{name} images: as many of the same classes, but other images, labels or captions ({digests})"
            )
        lines += changes
    return list(dict.fromkeys(lines))


def alike(old: Content, new: Content) -> bool:
    """Whether two runs' data has the same splits, with as many images of the same classes."""
    splits = [{name: (split.number, split.class_names) for name, split in each.splits.items()} for each in (old, new)]
    return splits[0] == splits[1]


def _of_classes(old: Sequence[str] | None, new: Sequence[str] | None, before: str, after: str) -> str:
    if old is None or new is None or set(old) == set(new):
        return f"classes: {_names(old)} {before}, {_names(new)} {after}"
    gone, come = ([each for each in own if each not in others] for own, others in ((old, new), (new, old)))
    return f"classes: {_names(gone)} only {before}, {_names(come)} only {after}"


def _names(names: Sequence[str] | None) -> str:
    if not names:
        return "none"
    return f"{', '.join(names[:SEVERAL])}{f', ... ({len(names)} of them)' if len(names) > SEVERAL else ''}"


def _split(number: int, class_names: list[str] | None, sha256: str) -> Split:
    return Split(number, None if class_names is None else tuple(class_names), sha256)
