"""Latents' moments of a whole data set, computed once and kept like decoded images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from langevin.data.cache import CachedSamples, folder_of, open_or_build
from langevin.data.images import DecodedBlock, LazySamples, Transform
from langevin.data.source import SampleSet
from langevin.data.store import room_for


class MomentsEncoder(NamedTuple):
    """What computes moments.

    Attributes:
        shape: (*size, M) of the moments of one sample.
        function: what tells what it computes from what others do, such as the digest of its weights.
        encode: gives the moments (B, *size, M) of stored samples (B, *size, C).
    """

    shape: tuple[int, ...]
    function: str
    encode: Callable[[NDArray[Any]], NDArray[np.float16]]


@dataclass(frozen=True)
class MomentsTransform:
    """What a cache of moments holds: float16, as a transform's description.

    Attributes:
        shape: (*size, M) of the moments of one sample.
    """

    shape: tuple[int, ...]
    dtype: ClassVar[type[np.generic]] = np.float16

    def __call__(self, sample: NDArray[Any]) -> NDArray[Any]:  # noqa: D102
        return sample

    def enlarges(self, sample: NDArray[Any]) -> bool:  # noqa: D102
        return False


@dataclass(frozen=True)
class EncodedSamples(LazySamples):
    """Samples of a cache on their way through an encoder; those above the number of samples are mirror images.

    Attributes:
        samples: the cache.
        mirrors: 2 where samples may be mirrored, which latents cannot be; else 1.
        encode: see `MomentsEncoder`.
    """

    samples: CachedSamples
    mirrors: int
    encode: Callable[[NDArray[Any]], NDArray[np.float16]]
    threads: ClassVar[int] = 1  # the encoder itself uses all cores, or a GPU
    doing: ClassVar[str] = "encoding"

    def __len__(self) -> int:
        return self.mirrors * len(self.samples)

    def open(self, index: int) -> Any:  # noqa: D102
        return self.block([index]).array[0]

    def block(self, indices: Sequence[int], transform: Transform | None = None) -> DecodedBlock:
        """Encode some of them; what fails is the encoder, not a sample, and is raised."""
        rows = np.asarray(indices)
        stored = self.samples.samples[rows % len(self.samples)]
        is_mirrored = (rows >= len(self.samples)).reshape(-1, *(1,) * (stored.ndim - 1))
        moments = self.encode(np.where(is_mirrored, stored[..., ::-1, :], stored))
        return DecodedBlock(np.ascontiguousarray(moments), [], {})


def open_or_encode(
    cache_dir: Path, name: str, samples: CachedSamples, flip: bool, encoder: MomentsEncoder
) -> CachedSamples:
    """Open the moments of all samples, and compute them first if there are none; killed and rerun, it resumes.

    They have no captions: those of a mirror image are the ones of its sample, see `langevin.data.module.Batched`.

    Args:
        cache_dir: the folder of all caches.
        name: what the cache is called, for people.
        samples: the data.
        flip: whether it may be mirrored: then row N + i is the mirror image of row i.
        encoder: called only if they must be computed.

    Raises:
        UserError: when there is not enough room.
        Interrupted: between two chunks, once a signal has come.
    """
    lazy = EncodedSamples(samples, 1 + flip, encoder.encode)
    fingerprint = repr(("latents", samples.stored_digest, flip, encoder.function))
    transform = MomentsTransform(encoder.shape)

    def load() -> SampleSet:
        size = len(lazy) * int(np.prod(encoder.shape)) * np.dtype(MomentsTransform.dtype).itemsize
        folder = folder_of(cache_dir, name, fingerprint, transform)
        room = room_for(folder, size, f"the latents of {len(lazy):,} images")
        print(f"encoding {len(lazy):,} images once{' (both mirror images)' if flip else ''}: {room}", flush=True)
        repeated = np.tile(samples.labels, lazy.mirrors)
        columns = {key: np.concatenate([column] * lazy.mirrors) for key, column in samples.columns.items()}
        return SampleSet(lazy, repeated, samples.class_names, columns=columns)

    return open_or_build(cache_dir, name, fingerprint, transform, load)
