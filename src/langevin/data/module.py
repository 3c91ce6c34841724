"""From a source to batches: the LightningDataModule."""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, cast

import lightning
import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from langevin.content import Content, Split
from langevin.data.cache import CachedSamples, open_or_build, resolve_cache_dir
from langevin.data.caption_writer import CaptionWriter
from langevin.data.captions import Captions
from langevin.data.hints import with_hints
from langevin.data.latents import MomentsEncoder, open_or_encode
from langevin.data.samples import OpenedSamples
from langevin.data.source import Source
from langevin.data.stream import Positions, SampleStream
from langevin.data.tokens import CaptionEncoder, Encodings, encode_texts
from langevin.errors import OptionError, UserError
from langevin.images import HINT, from_file
from langevin.modalities.modality import Modality
from langevin.spec import DataSpec

Batch = dict[str, Tensor]


class Batched(Dataset[Batch]):
    """Whole batches of a split; from a cache, one gather from the memory map a batch.

    Args:
        samples: of the split.
        flip: whether samples may be mirrored.
        moments: of the samples' latents, see `open_or_encode`; None where the samples themselves are given.
        encodings: of the distinct captions; None where batches have none.
        trained: which of the samples the positions count; None for all.
    """

    def __init__(
        self,
        samples: OpenedSamples,
        flip: bool,
        moments: CachedSamples | None = None,
        encodings: Encodings | None = None,
        trained: NDArray[np.int64] | None = None,
    ) -> None:
        self.samples = samples
        self.flip = flip
        self.moments = moments
        self.encodings = encodings
        self.trained = trained

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, positions: Positions) -> Batch:
        """Gather a batch.

        Args:
            positions: B places of the stream, or of a split in its order.

        Returns:
            what `CachedSamples.batch` gives, and "flip" (B,) bool where samples may be mirrored; or with "moments"
            (B, M, *size) in place of "x". With the columns of one caption of each sample, whether it is mirrored or
            not. In validation B may be 0.
        """
        indices, flips, uniform = positions
        rows = indices if self.trained is None else self.trained[indices]
        told = {}
        if self.encodings is not None and self.samples.captions is not None:
            told = self.encodings.batch(self.samples.captions.choose(rows, uniform))
        if self.moments is not None:
            batch = self.moments.batch(rows + len(self.samples) * flips)
            return {"moments": batch.pop("x"), **batch, "index": torch.from_numpy(rows), **told}
        return self.samples.batch(rows) | ({"flip": torch.from_numpy(flips)} if self.flip else {}) | told


def preprocess(batch: Batch, modality: Modality) -> Batch:
    """Turn a batch of stored samples into a model's input, on its own device.

    Args:
        batch: what the loaders give, see `Batched`.
        modality: what the samples are.

    Returns:
        the same without "flip", and "x" (B, C, *size) as a model takes it, mirrored where "flip" was true, with "hint"
        (B, 1, H, W) in [0, 1], likewise mirrored, where there is one; or "moments" in float32, of the mirrored samples
        already.
    """
    if "moments" in batch:
        return batch | {"moments": batch["moments"].float()}
    batch = dict(batch)
    if (flip := batch.pop("flip", None)) is not None:
        # Before the conversion: of bytes, a quarter of the memory traffic of floats.
        for name in batch.keys() & {"x", HINT}:
            stored = batch[name]
            batch[name] = torch.where(flip.reshape(-1, *(1,) * (stored.ndim - 1)), stored.flip(-1), stored)
    if HINT in batch:
        batch[HINT] = from_file(batch[HINT])
    return batch | {"x": modality.to_model(batch["x"])}


class DataModule(lightning.LightningDataModule):
    """Training batches from an endless, resumable stream, validation batches from the source's test split.

    Training resumes from the trainer's ``global_step``. The Trainer must be made with
    ``use_distributed_sampler=False``: the stream itself gives each process its part.

    Args:
        source: the samples.
        batch_size: samples of an optimizer step over all processes and micro-batches.
        accumulate: micro-batches of an optimizer step.
        num_workers: worker processes that gather batches; 0 gathers in the main process.
        cache_dir: where the decoded samples are kept; None is ``$LANGEVIN_CACHE``, else ``~/.cache/langevin``.
        seed: chooses the order of the samples and their mirroring.
        first: train on the first so many samples alone; None for all.
        captions: writes captions of samples that have none; None where nothing does.

    Attributes:
        train_set: the decoded training samples; here after `prepare_data`, as are the following.
        test_set: the decoded test samples, or None when the source has none.
        class_names: a name for each class, or None when unlabelled.
        num_classes: number of classes, or None when unlabelled.
        moments: of the latents of each split, after `encode`; else empty.
        encodings: of the captions of each split, after `tokenize`; else empty.
        trained: the indices of the training samples that are trained on; None for all.
        varies_size: whether training batches are of several sizes.

    Raises:
        UserError: when a number is out of range.
    """

    varies_size: ClassVar[bool] = False
    train_set: OpenedSamples
    test_set: OpenedSamples | None
    class_names: tuple[str, ...] | None
    num_classes: int | None

    def __init__(
        self,
        source: Source,
        batch_size: int,
        accumulate: int = 1,
        num_workers: Annotated[int, Ge(0)] = 0,
        cache_dir: str | None = None,
        seed: int = 0,
        first: int | None = None,
        captions: CaptionWriter | None = None,
    ) -> None:
        super().__init__()
        for option, value, least in (
            ("batch_size", batch_size, 1),
            ("accumulate", accumulate, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise OptionError(option, f"is {value}; allowed: at least {least}")
        self.source = source
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.num_workers = num_workers
        self.cache_dir = resolve_cache_dir(cache_dir)
        self.seed = seed
        self.first = first
        self.writer = captions
        self.moments: dict[str, CachedSamples] = {}
        self.encodings: dict[str, Encodings] = {}
        self.trained: NDArray[np.int64] | None = None

    def prepare_data(self) -> None:
        """Open the caches, building them if necessary; safe from every process, and a second call does nothing.

        Raises:
            UserError: when the images are missing or broken, or the cache cannot be written.
        """
        if hasattr(self, "train_set"):
            return
        self.source.check()
        sets = {split: self._open(split) for split in self.source.splits()}
        train, test = sets["train"], sets.get("test")
        if test is not None and test.class_names != train.class_names:
            way = (
                "" if getattr(self.source, "test_path", None) is None else ", or data.test_path=null for no test images"
            )
            raise UserError(
                f"data: the test images have the classes {_brief(test.class_names)}, "
                f"the training images {_brief(train.class_names)}; they must be the same{way}"
            )
        self.class_names = train.class_names
        self.num_classes = None if train.class_names is None else len(train.class_names)
        self.test_set = None if test is None else self._captioned(test, train)
        captioned = self._captioned(train, train)
        if self.writer is not None and captioned.captions is not None:
            self.trained = self.writer.trained(captioned.captions)
        self.train_set = captioned

    def encode(self, encoder: MomentsEncoder) -> CachedSamples:
        """Give latents' moments in batches from here on, in place of samples; they are computed if necessary.

        Args:
            encoder: computes them.

        Returns:
            those of the training samples.

        Raises:
            UserError: when they cannot be written, or there is too little room.
            Interrupted: once a signal has come.
        """
        sets = {"train": self.train_set, "test": self.test_set}
        for split, samples in sets.items():
            if samples is not None:
                assert isinstance(samples, CachedSamples)  # others keep no samples to encode
                name = f"{self.source.name}-{split}-latents"
                flip = self.source.flip and split == "train"
                self.moments[split] = open_or_encode(self.cache_dir, name, samples, flip, encoder)
        return self.moments["train"]

    def tokenize(self, encoder: CaptionEncoder) -> None:
        """Give the encoder's columns of one caption of each sample in batches from here on.

        Of several captions one is chosen at each place of the stream by a number that belongs to it, in validation the
        first. What the encoder computes is computed once for each distinct caption of a split.

        Args:
            encoder: computes them.

        Raises:
            UserError: when the samples have no captions, or what is computed cannot be written.
            Interrupted: once a signal has come.
        """
        sets = {"train": self.train_set, "test": self.test_set}
        for split, samples in sets.items():
            if samples is not None:
                if samples.captions is None:
                    raise UserError(
                        f"data: the {split} samples have no captions; take data=captioned, or other data "
                        "that has some, or captions=templates"
                    )
                name = f"{self.source.name}-{split}-captions"
                self.encodings[split] = encode_texts(self.cache_dir, name, samples.captions.texts, encoder)

    @property
    def spec(self) -> DataSpec:
        """What a model must know of the data; known after `prepare_data`."""
        captions = self.train_set.captions
        words = None if captions is None else captions.vocabulary
        return self.source.spec(self.num_classes, self.content.sha256, words)

    @property
    def content(self) -> Content:
        """Which samples these are, wherever they lie; known after `prepare_data`."""
        sets = {"train": self.train_set, "test": self.test_set}
        return Content(
            {
                name: Split(len(samples), samples.class_names, samples.digest)
                for name, samples in sets.items()
                if samples is not None
            }
        )

    @property
    def number(self) -> int:
        """How many samples are trained on; known after `prepare_data`."""
        number = len(self.train_set) if self.trained is None else len(self.trained)
        return number if self.first is None else min(self.first, number)

    def setup(self, stage: str) -> None:
        """Open the caches in the processes in which Lightning does not call `prepare_data`."""
        self.prepare_data()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Endless micro-batches of this process, from the trainer's present step on.

        Raises:
            UserError: when ``batch_size`` is not divisible by the number of processes times ``accumulate``.
        """
        trainer = self.trainer
        rank, world_size = self._rank_and_world_size()
        self._micro_batch_size(world_size)
        stream = self._stream(
            batch_size=self.batch_size,
            seed=self.seed,
            flip=self.source.flip,
            rank=rank,
            world_size=world_size,
            accumulate=self.accumulate,
            start=lambda: 0 if trainer is None else trainer.global_step * self.accumulate,
            choose="train" in self.encodings,
        )
        return self._loader("train", stream)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """The test split once, in order; [] if there is no test split.

        It is cut into batches as by one process, and process r has the images r, r + world size, ... of each batch. So
        all processes have equally many batches, as Lightning needs, and no image is given twice: of the last batch, a
        process may have one image less than another, or none.
        """
        if self.test_set is None:
            return []
        rank, world_size = self._rank_and_world_size()
        number, size = len(self.test_set), self._micro_batch_size(world_size) * world_size
        batches = [np.arange(first + rank, min(first + size, number), world_size) for first in range(0, number, size)]
        return self._loader("test", [Positions.plain(indices) for indices in batches])

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turn stored samples into a model's input once they are on the device; see `preprocess`."""
        return preprocess(batch, self.source.modality)

    def _open(self, split: str) -> OpenedSamples:
        source = self.source
        samples = open_or_build(
            self.cache_dir,
            f"{source.name}-{split}",
            repr((split, source.fingerprint(split))),
            source.transform,
            lambda: source.load(split),
        )
        hints = source.hints_of(split)
        return samples if hints is None else with_hints(self.cache_dir, f"{source.name}-{split}-hints", hints, samples)

    def _captioned(self, samples: OpenedSamples, train: OpenedSamples) -> OpenedSamples:
        """Samples with the captions that are written of them, where they have none."""
        if self.writer is None or samples.captions is not None:
            return samples
        if samples.class_names is None:
            raise UserError("captions: are written of the samples' classes, and this data has none; take captions=none")
        phrases = [self.source.phrases(name) for name in samples.class_names]
        written = self.writer.write(samples.samples, samples.labels, phrases, train.samples)
        assert isinstance(samples, CachedSamples)  # others keep no samples to write captions of
        return samples.with_captions(Captions.pack(written, "sample {}".format))

    def _stream(self, **options: Any) -> SampleStream:
        """The order of the training samples; the options are those of `SampleStream`."""
        return SampleStream(self.number, **options)

    def _batches_of(self, split: str) -> Batched:
        """A split's batches, by their positions."""
        is_train = split == "train"
        samples, trained = (self.train_set, self.trained) if is_train else (self.test_set, None)
        assert samples is not None
        flip = is_train and self.source.flip
        return Batched(samples, flip, self.moments.get(split), self.encodings.get(split), trained)

    def _loader(self, split: str, batches: Iterable[Positions]) -> DataLoader[Batch]:
        return DataLoader(
            self._batches_of(split),
            batch_size=None,  # the sampler gives whole batches of indices
            sampler=cast("Any", batches),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _micro_batch_size(self, world_size: int) -> int:
        size, rest = divmod(self.batch_size, world_size * self.accumulate)
        if rest:
            raise UserError(
                f"batch_size={self.batch_size}: must be divisible by the number of processes times accumulate, "
                f"{world_size} * {self.accumulate} = {world_size * self.accumulate}"
            )
        return size


def _brief(names: tuple[str, ...] | None) -> str:
    if names is None:
        return "none (unlabelled)"
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)} of them)"
