"""Training batches of blocks that are read while training, in place of a cache of all images."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor

from langevin.data.block_stream import BlockStream
from langevin.data.blocks import BlockImages, BlockReader, BlockSource
from langevin.data.caption_writer import CaptionWriter
from langevin.data.captions import Captions
from langevin.data.module import Batch, Batched, DataModule
from langevin.data.samples import OpenedSamples
from langevin.data.source import Source
from langevin.data.stream import Positions, SampleStream
from langevin.errors import OptionError, UserError

_BROKEN = "broken"  # in place of a batch: why it cannot be read
_WHOLE = 8  # processes, of which each has whole blocks read ahead; of more, each has its own images read alone


class BlockSamples:
    """The training samples of blocks: decoded whenever they are asked for, see `langevin.data.samples.OpenedSamples`.

    Args:
        source: of the blocks.
        split: whose.
        reader: holds a few of the blocks.
    """

    hints: OpenedSamples | None = None
    skipped: tuple[str, ...] = ()
    enlarged: tuple[int, tuple[str, ...]] = (0, ())

    def __init__(self, source: BlockSource, split: str, reader: BlockReader) -> None:
        self.split = split
        self.images = BlockImages(reader)
        self.transform = source.transform
        labels, none = reader.index.labels, np.broadcast_to(np.int64(-1), len(self.images))
        self.class_names: tuple[str, ...] | None = reader.index.classes if len(labels) else None
        self.labels: NDArray[np.int64] = labels if len(labels) else none
        self.digest = source.content_of(reader.index)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def captions(self) -> Captions | None:
        """Those that the index holds."""
        return self.images.reader.index.captions

    @property
    def samples(self) -> NDArray[Any]:
        """What a cache has of all samples.

        Raises:
            UserError: always.
        """
        raise UserError(
            "loader=blocks: keeps no decoded training set, which this needs: metrics= in training, captions that are "
            "written, latents that are kept, and images that are reconstructed or are conditions, without "
            "data.test_path; leave it out, or take loader=default"
        )

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> dict[str, Tensor]:
        """See `OpenedSamples`.

        Raises:
            UserError: when an image cannot be decoded, or its file has changed or cannot be read.
        """
        rows = np.asarray(indices, np.int64)
        block = self.images.block(rows.tolist(), self.transform)
        for row, error in block.broken.items():
            raise UserError(f"{self.images.name(row)} cannot be used: {error}; replace or remove it")
        return {
            "x": torch.from_numpy(block.array).movedim(-1, 1),
            "label": torch.from_numpy(self.labels[rows]),
            "index": torch.from_numpy(rows),
        }


class BlockBatched(Batched):
    """Batches of images that are decoded for them; where one cannot be, the reason is given in place of the batch.

    An error of a worker process would reach the main process as its traceback.
    """

    def __getitem__(self, positions: Positions) -> Batch:
        """See `Batched`."""
        try:
            return super().__getitem__(positions)
        except UserError as error:
            return {_BROKEN: torch.tensor(list(str(error).encode()), dtype=torch.uint8)}


class BlockDataModule(DataModule):
    """Trains on blocks, such as tar shards, of which a few at a time are read; no cache of all images is made.

    What is trained on at a position of the stream is a function of (seed, position), see `BlockStream`, so nothing is
    saved to resume. Each process reads and decodes the images of its own batches alone, where the kind of file lets it:
    of Parquet it reads whole row groups. Images for testing are cached as those of other data are.

    Args:
        source: of blocks.
        batch_size: see `DataModule`, as are all others.
        window: blocks whose images are shuffled together. Those of Parquet are held in memory, encoded, by each process
            that decodes: the worker processes, or the main process without any.
        accumulate: micro-batches of an optimizer step.
        num_workers: worker processes that read and decode.
        cache_dir: where the index, and images for testing, are kept.
        seed: chooses the order of the samples and their mirroring.
        first: train on the first so many samples alone.
        captions: refused: they are written of decoded images. Those of the source are read with the blocks' index.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        window: Annotated[int, Ge(1)] = 8,
        accumulate: int = 1,
        num_workers: Annotated[int, Ge(0)] = 2,
        cache_dir: str | None = None,
        seed: int = 0,
        first: int | None = None,
        captions: CaptionWriter | None = None,
    ) -> None:
        super().__init__(source, batch_size, accumulate, num_workers, cache_dir, seed, first, captions)
        if window < 1:
            raise OptionError("window", f"is {window}; allowed: at least 1")
        if captions is not None:
            raise OptionError("captions", "are written of a cache of all images; allowed with loader=blocks: none")
        self.window = window

    def prepare_data(self) -> None:
        """Open the index, making it if necessary; see `DataModule`.

        Raises:
            UserError: when the source has no blocks, a file is missing or broken, or the cache cannot be written.
        """
        if not isinstance(self.source, BlockSource):
            raise UserError(
                f"loader=blocks: reads data that lies in blocks, and {self.source.name} does not; allowed: "
                "data=parquet, data=tar_shards, or loader=default"
            )
        super().prepare_data()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """See `DataModule`.

        Raises:
            UserError: when the batch could not be read.
        """
        if _BROKEN in batch:
            raise UserError(bytes(batch[_BROKEN].tolist()).decode())
        return super().on_after_batch_transfer(batch, dataloader_idx)

    def _open(self, split: str) -> OpenedSamples:
        assert isinstance(self.source, BlockSource)
        if split != "train":
            return super()._open(split)
        index = self.source.open_index(split, self.cache_dir)
        return BlockSamples(self.source, split, BlockReader(self.source, split, index, self.window))

    def _stream(self, **options: Any) -> SampleStream:
        assert isinstance(self.train_set, BlockSamples)
        ends = np.minimum(self.train_set.images.reader.index.starts, self.number)
        counts = np.diff(ends)
        return BlockStream(counts[counts > 0], self.window, **options)

    def _batches_of(self, split: str) -> Batched:
        batches = super()._batches_of(split)
        if split != "train":
            return batches
        assert isinstance(self.train_set, BlockSamples)
        _, world_size = self._rank_and_world_size()
        self.train_set.images.reader.whole = world_size <= _WHOLE
        return BlockBatched(batches.samples, batches.flip, encodings=batches.encodings)
