"""Samples of a model in memory, as Python and a notebook see them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from langevin.images import Figure
    from langevin.modalities.modality import Modality
    from langevin.samplers.trajectory import Trajectory


@dataclass(frozen=True, eq=False, repr=False)
class Strips:
    """How some samples come out of noise, at several times.

    Attributes:
        x_t: the noisy samples (N, C, *size) at each time, as stored, brought to unit variance so that they can be seen.
        x: the predicted ones, likewise.
        finished: the samples that came of them, likewise.
        modality: what they are.
        times: what each time is labelled with.
        classes: what samples are labelled with, at least as many as these; None of an unconditional model.
    """

    x_t: "Sequence[Tensor]"
    x: "Sequence[Tensor]"
    finished: "Tensor"
    modality: "Modality"
    times: Sequence[str] = ()
    classes: Sequence[str] | None = None

    @classmethod
    def of(
        cls,
        seen: "Trajectory",
        num_times: int,
        samples: "Tensor",
        modality: "Modality",
        classes: Sequence[str] | None,
    ) -> "Strips":
        """What a trajectory has seen of a batch, at `num_times` times; it records no other batch then.

        Args:
            seen: the trajectory.
            num_times: at least 2.
            samples: the batch, as stored, (N, C, *size).
            modality: what they are.
            classes: what they are labelled with; None of an unconditional model.
        """
        seen.is_complete = True
        return cls(*seen.chosen(num_times), samples[: seen.count].cpu(), modality, seen.labels(num_times), classes)

    def figure(self, number: int | None = None) -> "Figure":
        """The first `number` of them to be looked at, with x_t above x; None: all."""
        x_t, x = ([frame[:number] for frame in frames] for frames in (self.x_t, self.x))
        finished = self.finished[:number]
        classes = None if self.classes is None else self.classes[: len(finished)]
        return self.modality.strips(x_t, x, finished, self.times, classes)


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Samples of a model. A notebook shows them.

    Attributes:
        samples: images are uint8 (N, H, W, C), vectors float32 (N, D).
        labels: the class of each, int64 (N,); None of an unconditional model.
        record: how they were made, plain values, as stored in samples.npz.
        modality: what they are.
        trajectory: how the first of them come out of noise; None where that was not asked for.
        classes: the prompt of each, else the name of its class, or its number where names are not known; None of an
            unconditional model.
        before: of a cascade, what each stage before has made.
        prompts: what each was made of; None of a model that takes no text.
    """

    samples: "NDArray[Any]"
    labels: "NDArray[np.int64] | None"
    record: dict[str, Any]
    modality: "Modality"
    trajectory: Strips | None = None
    classes: Sequence[str] | None = None
    before: "tuple[Samples, ...]" = ()
    prompts: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"<{len(self)} {self.modality.noun} of shape {self.samples.shape[1:]}>"

    def _repr_png_(self) -> bytes:
        from langevin.assembly.sample_files import COLUMNS

        return self.figure(COLUMNS).png()

    def figure(self, columns: int) -> "Figure":
        """The first of them to be looked at: ``.pixels``, or as a file, ``.png()``.

        Args:
            columns: of images, how many are in a row.
        """
        from langevin.assembly.sample_files import preview

        return preview([self._channels_first()], self.modality, self.classes, columns)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``samples.npz`` and ``grid.png`` as ``langevin sample`` does; files of these names are replaced.

        And ``trajectory.png`` where there is a `trajectory`.

        Args:
            folder: is made where it is missing.

        Raises:
            OSError: when it cannot be written.
        """
        from langevin.assembly.sample_files import write

        about = self.labels, self.record, self.modality, self.classes, self.prompts
        write(Path(folder), lambda: [self._channels_first()], len(self), *about)
        if self.trajectory is not None:
            self.trajectory.figure().write(Path(folder) / "trajectory.png")

    def _channels_first(self) -> "NDArray[Any]":
        import numpy as np

        return np.ascontiguousarray(np.moveaxis(self.samples, -1, 1))
