"""What a run reads, in a line."""

from collections import Counter
from collections.abc import Sequence

from langevin.data.archive import counted
from langevin.data.module import DataModule

_SHOWN = 3


def summary(data: DataModule) -> str | None:
    """What an opened source of files gives and what of it is left out or enlarged, and the captions.

    None where neither an image file is read nor samples have captions. Such as "data: 82 images in 2 classes; left out:
    12 .heic files, 1 broken image (cat/4.png in pets.zip)", or "data: 70 images, 140 captions (95 of them distinct);
    enlarged to 64x64: 5 images (a.png in mine, b.png in mine, ...)".
    """
    files, captions = data.source.left_out(), data.train_set.captions
    if files is None and captions is None:
        return None
    noun = data.source.modality.noun
    sets = {noun: data.train_set, f"test {noun}": data.test_set}
    parts = [f"{len(images):,} {what}" for what, images in sets.items() if images is not None]
    classes = "" if data.num_classes is None else f" in {data.num_classes:,} class{'es' * (data.num_classes != 1)}"
    skipped = [name for images in sets.values() if images is not None for name in images.skipped]
    broken = _listed("broken image", len(skipped), skipped) if skipped else ""
    left_out = ", ".join(filter(None, (counted(files or Counter()), broken)))
    hints = "" if data.train_set.hints is None else ", a hint each"
    text = f"data: {' and '.join(parts)}{classes}{hints}{_of_captions(data)}"
    text += f"; left out: {left_out}" if left_out else ""
    enlarged = [images.enlarged for images in sets.values() if images is not None]
    if not (number := sum(each for each, _ in enlarged)):
        return text
    size = "their bucket" if data.varies_size else "x".join(map(str, data.spec.shape[1:]))
    return f"{text}; enlarged to {size}: {_listed('image', number, [name for _, names in enlarged for name in names])}"


def _of_captions(data: DataModule) -> str:
    """How many captions the training samples have, such as ", 3,000 captions (80 of them distinct)"."""
    captions = data.train_set.captions
    if captions is None:
        return ""
    text = f", {counted(Counter(caption=len(captions.ids)))} ({len(captions.texts):,} of them distinct)"
    held_out = len(captions) - (len(captions) if data.trained is None else len(data.trained))
    return text + (f"; {held_out:,} {data.source.modality.noun} held out of training" if held_out else "")


def _listed(noun: str, number: int, names: Sequence[str]) -> str:
    """How many there are, and what the first of them are called."""
    named = ", ".join(names[:_SHOWN]) + ", ..." * (number > _SHOWN)
    return f"{counted(Counter({noun: number}))} ({named})"
