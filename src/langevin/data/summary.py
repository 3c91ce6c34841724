"""What a run reads, in a line."""

from collections import Counter

from langevin.data.archive import counted
from langevin.data.module import DataModule

_SHOWN = 3


def summary(data: DataModule) -> str | None:
    """What an opened source of files gives and what of it is left out; None where no image file is read.

    Such as "data: 82 images in 2 classes; left out: 12 .heic files, 1 broken image (cat/4.png in pets.zip)".
    """
    files = data.source.left_out()
    if files is None:
        return None
    noun = data.source.modality.noun
    sets = {noun: data.train_set, f"test {noun}": data.test_set}
    parts = [f"{len(images):,} {what}" for what, images in sets.items() if images is not None]
    classes = "" if data.num_classes is None else f" in {data.num_classes:,} class{'es' * (data.num_classes != 1)}"
    skipped = [name for images in sets.values() if images is not None for name in images.skipped]
    named = ", ".join(skipped[:_SHOWN]) + ", ..." * (len(skipped) > _SHOWN)
    broken = f"{counted(Counter({'broken image': len(skipped)}))} ({named})" if skipped else ""
    left_out = ", ".join(filter(None, (counted(files), broken)))
    return f"data: {' and '.join(parts)}{classes}" + (f"; left out: {left_out}" if left_out else "")
