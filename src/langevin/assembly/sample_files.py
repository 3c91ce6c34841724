"""The files that `langevin sample` writes, and what is looked at in them."""

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from langevin.config.identity import flatten
from langevin.config.migration import migrated
from langevin.data.read_images import PROMPTS
from langevin.errors import UserError
from langevin.evaluation.protocol import differing
from langevin.files import write_atomically
from langevin.images import Figure, write_npz
from langevin.modalities.modality import Modality
from langevin.samplers.generate import Originals, SamplePipeline
from langevin.samplers.pipeline import SAMPLES
from langevin.samplers.restored import Restored
from langevin.samplers.store import SampleStore
from langevin.samplers.trajectory import Trajectory

COLUMNS = 10
NOISY_FILE = "noisy.npz"
"""What a truncated stage hands on, beside its samples.npz, which shows the same rounded to levels."""
LONGEST_NAME = 60
"""Letters of a class or a prompt in the name of a file."""


def refuse_others(out: Path, record: dict[str, Any]) -> None:
    """Check that a folder's samples.npz was made with the settings of a record.

    Raises:
        UserError: when it was not, or it has no record.
    """
    message = f"out={out}: holds a samples.npz already; choose another out=, or overwrite=true"
    held = record_in(out / "samples.npz")
    if held is None:
        raise UserError(f"{message}. How that was made is not recorded in it")
    there, now = (dict(flatten(each)) for each in (held, json.loads(json.dumps(record))))
    # Where the checkpoint lies does not matter: its weights have a digest.
    if paths := [path for path in differing([there, now]) if path != "model.checkpoint"]:
        lines = [f"  {path}: {there.get(path, 'absent')} there, {now.get(path, 'absent')} now" for path in paths]
        raise UserError("\n".join([f"{message}. That was made with other settings:", *lines]))


def record_in(path: Path) -> dict[str, Any] | None:
    """How the samples in a samples.npz were made, and how many there are; None where it has no record."""
    try:
        with np.load(path, allow_pickle=False) as arrays, zipfile.ZipFile(path) as archive:
            record = migrated(json.loads(str(arrays["record"])))
            with archive.open("arr_0.npy") as member:  # its shape alone: there may be many
                np.lib.format.read_magic(member)
                shape, _, _ = np.lib.format.read_array_header_1_0(member)
        return {"num_samples": shape[0], **record}
    except (
        *(OSError, ValueError, KeyError, IndexError, TypeError, EOFError),
        *(RecursionError, MemoryError, zipfile.BadZipFile),
    ):
        return None


def is_whole(out: Path, files: Iterable[Path], trajectory: bool) -> bool:
    """Whether everything exists that a command writes beside samples.npz; a trajectory is always recomputed.

    Args:
        out: the folder.
        files: what there is beside grid.png.
        trajectory: whether one is asked for.
    """
    files = [out / "grid.png", *files]
    return not trajectory and all(file.is_file() for file in files)


def one_by_one(
    out: Path, indices: Iterable[int], modality: Modality, classes: Sequence[str] | None = None
) -> list[Path]:
    """The files of single samples, named by their number and class."""

    def ending(index: int) -> str:
        return "" if classes is None else "-" + re.sub(r"[^\w-]+", "_", classes[index])[:LONGEST_NAME]

    return [out / "png" / f"{index:06d}{ending(index)}{modality.suffix}" for index in indices]


def difference(originals: Originals, store: SampleStore, batches: Sequence[Sequence[int]]) -> float:
    """How far the stored samples are off their originals, in their own units, on average."""
    off = 0.0
    for indices, made in zip(batches, store.arrays(SAMPLES, batches), strict=True):
        off += np.abs(made.astype(float) - np.moveaxis(originals.samples[indices], -1, 1)).sum()
    return off / (sum(map(len, batches)) * originals.samples[0].size)


def write_trajectory(out: Path, seen: Trajectory, figure: Figure) -> None:
    """Write trajectory.png and, with every evaluation of the model, trajectory.npz: "t", and of it "x_t" and "x"."""
    figure.write(out / "trajectory.png")
    arrays = {"t": np.array(seen.times)}
    for name, frames in (("x_t", seen.x_t), ("x", seen.x)):
        arrays[name] = np.stack([frame.movedim(1, -1).numpy() for frame in frames])
    write_atomically(out / "trajectory.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))


def first(parts: Iterable[NDArray[Any]], number: int) -> torch.Tensor:
    """The first `number` samples of some parts (B, C, *size), of which no more are read."""
    shown: list[np.ndarray] = []
    for part in parts:
        shown += list(part[: number - len(shown)])
        if len(shown) == number:
            break
    return torch.from_numpy(np.stack(shown))


def preview(
    parts: Iterable[NDArray[Any]], modality: Modality, classes: Sequence[str] | None = None, columns: int = COLUMNS
) -> Figure:
    """The first of some samples to be looked at; of the parts (B, C, *size), no more are read than it shows."""
    shown = first(parts, modality.previewed)
    return modality.preview(shown, columns, None if classes is None else classes[: len(shown)])


def show_originals(
    originals: Originals,
    store: SampleStore,
    batches: Sequence[Sequence[int]],
    generator: SamplePipeline,
    classes: Sequence[str] | None,
    inverted: bool,
) -> Figure:
    """The first samples to be looked at beside what they were made of: the original and, of an inversion, the noise."""
    made = first(store.arrays(SAMPLES, batches), generator.modality.previewed // 2)
    number = len(made)
    kinds = {"original": torch.from_numpy(originals.samples[:number]).movedim(-1, 1)}
    if inverted:
        kinds |= {"noise": generator.show(first(store.arrays("noise", batches), number)).cpu(), "rebuilt": made}
    else:
        kinds |= {"edited": made}
    return generator.modality.beside(kinds, COLUMNS, None if classes is None else classes[:number])


def inconsistency(
    restored: Restored, store: SampleStore, batches: Sequence[Sequence[int]], seed: int, modality: Modality
) -> str:
    """How far the measurements of the stored samples are off the given ones, with its unit."""
    parts = zip(batches, store.arrays(SAMPLES, batches), strict=True)
    gaps = [
        restored.inconsistency(torch.from_numpy(made), restored.measured(indices, seed, "cpu"))
        for indices, made in parts
    ]
    mean = float(torch.cat(gaps).mean())
    return f"{mean:.3g}" if modality.levels is None else f"{mean * (modality.levels - 1) / 2:.2f} levels"


def write(
    out: Path,
    parts: Callable[[], Iterable[NDArray[Any]]],
    number: int,
    labels: NDArray[np.int64] | None,
    record: dict[str, Any],
    modality: Modality,
    classes: Sequence[str] | None,
    prompts: Sequence[str] | None = None,
) -> None:
    """Write samples.npz (ADM's layout, and how they were made) and grid.png, never all samples in memory at once.

    Args:
        out: the folder.
        parts: gives the samples, as stored, one part (B, C, *size) after the other.
        number: how many samples these are.
        labels: int64 (N,), or None.
        record: how they were made.
        modality: what they are.
        classes: what each is labelled with in grid.png; None: with nothing.
        prompts: what each was made of, for "prompts" in samples.npz, a JSON list; None: of no text.
    """
    preview(parts(), modality, classes).write(out / "grid.png")
    arrays = {"record": np.array(json.dumps(record))} | ({} if labels is None else {"arr_1": labels})
    arrays |= {} if prompts is None else {PROMPTS: np.array(json.dumps(prompts))}
    write_npz(out / "samples.npz", (np.moveaxis(part, 1, -1) for part in parts()), number, **arrays)


def write_one_by_one(
    out: Path,
    store: SampleStore,
    batches: Sequence[Sequence[int]],
    modality: Modality,
    classes: Sequence[str] | None,
) -> None:
    """Write each sample as one file."""
    for indices, part in zip(batches, store.arrays(SAMPLES, batches), strict=True):
        for file, sample in zip(one_by_one(out, indices, modality, classes), torch.from_numpy(part), strict=True):
            modality.write(file, sample)
