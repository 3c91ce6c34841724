"""What a run reads, in a line."""

from collections import Counter
from collections.abc import Sequence

from langevin.data.archive import counted
from langevin.data.module import DataModule

_SHOWN = 3


def summary(data: DataModule) -> str | None:
    """What an opened source of files gives and what of it is left out or enlarged; None where no image file is read.

    Such as "data: 82 images in 2 classes; left out: 12 .heic files, 1 broken image (cat/4.png in pets.zip)", or
    "data: 70 images; enlarged to 64x64: 5 images (a.png in mine, b.png in mine, ...)".
    """
    files = data.source.left_out()
    if files is None:
        return None
    noun = data.source.modality.noun
    sets = {noun: data.train_set, f"test {noun}": data.test_set}
    parts = [f"{len(images):,} {what}" for what, images in sets.items() if images is not None]
    classes = "" if data.num_classes is None else f" in {data.num_classes:,} class{'es' * (data.num_classes != 1)}"
    skipped = [name for images in sets.values() if images is not None for name in images.skipped]
    broken = _listed("broken image", len(skipped), skipped) if skipped else ""
    left_out = ", ".join(filter(None, (counted(files), broken)))
    text = f"data: {' and '.join(parts)}{classes}" + (f"; left out: {left_out}" if left_out else "")
    enlarged = [images.enlarged for images in sets.values() if images is not None]
    if not (number := sum(each for each, _ in enlarged)):
        return text
    size = "x".join(map(str, data.spec.shape[1:]))
    return f"{text}; enlarged to {size}: {_listed('image', number, [name for _, names in enlarged for name in names])}"


def _listed(noun: str, number: int, names: Sequence[str]) -> str:
    """How many there are, and what the first of them are called."""
    named = ", ".join(names[:_SHOWN]) + ", ..." * (number > _SHOWN)
    return f"{counted(Counter({noun: number}))} ({named})"
