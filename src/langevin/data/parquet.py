"""Images in Parquet files, as Hugging Face's datasets writes them."""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from langevin.data.archive import LARGE, MAX_BYTES, MAX_RATIO
from langevin.data.block_index import MAX_CLASS, FileRows
from langevin.data.blocks import BlockSource
from langevin.data.caption_files import MAX_BYTES as MAX_CAPTION_BYTES
from langevin.data.captions import Captions
from langevin.data.image_folder import SPLITS
from langevin.data.images import WHITE
from langevin.data.parquet_columns import AUTO, Columns, class_names_of, find_columns, holds_names, leaf_of
from langevin.errors import UserError, missing_package
from langevin.visible import visible

_IMAGES_READ = 8  # rows that are decompressed at a time, before their size is looked at
_READ = 256  # of labels and captions
_SHOWN = 12  # classes that a message names
_UNLABELLED = -1  # as datasets writes it where the labels of a test split are kept secret
_MAX_GROUP = 2**30  # bytes of the images of a row group, which is held whole


class Parquet(BlockSource):
    """Images in the rows of Parquet files, of which each row group is one block.

    A folder may hold the files of several splits, which a word of their names says, or else of the folders that they
    lie in: ``train-00000-of-00002.parquet``, ``mnist_test/0000.parquet``. Then those of "train" are trained on, and
    those of "validation", else of "test", are for testing. Where no name says a split, all files are trained on; so is
    a single file that is given, whatever its name.

    Args:
        path: the folder of the files, or one of them.
        image_size: side in pixels.
        image: the column of images: their files as bytes, or as a struct {bytes, path}. "auto": the one that is an
            Image of datasets, "image" if there are several, or the only one of that type.
        label: the column of class ids, whole numbers from 0 up. Those of a ClassLabel of datasets have all its classes
            and their names; others are renumbered in their order, and are the names. Where the first file to train on
            has a ClassLabel, others may have the classes' names as texts. "auto": the only ClassLabel, else "label",
            else none. None: none.
        caption: the column of captions: a text, or a list of texts; None for none.
        test_path: a folder of Parquet files with images for testing, or one of them; "auto": those of `path`, if any;
            None: none.
        channels: 3 (RGB) or 1 (grey).
        flip: mirror images at random in training. Their captions stay.
        background: the colour behind transparent pixels, and beside padded images.
        resize: how an image that is no square becomes one.
    """

    suffix = ".parquet"

    def __init__(
        self,
        path: str | None,
        image_size: int,
        image: str = AUTO,
        label: str | None = AUTO,
        caption: str | None = None,
        test_path: str | None = AUTO,
        channels: int = 3,
        flip: bool = True,
        background: Sequence[Annotated[int, Ge(0), Le(255)]] = WHITE,
        resize: Literal["crop", "pad", "stretch"] = "crop",
    ) -> None:
        super().__init__(path, image_size, test_path, channels, flip, background, resize)
        self._wanted = Columns(image, label, caption)
        self._found: Columns | None = None
        self.columns = frozenset(name for name in ("label", "caption") if getattr(self._wanted, name) is not None)

    def check(self) -> None:
        """List the files, and look for the columns in the first of them.

        Raises:
            UserError: as `BlockSource.check`, when pyarrow is not installed, or a column is not there.
        """
        if find_spec("pyarrow") is None:
            raise missing_package("data=parquet", "pyarrow", "parquet")
        super().check()
        _ = self._names

    def splits(self) -> tuple[str, ...]:
        """Train, and test where there are test images."""
        named = self.test_path != AUTO or "test" in self._of_path[1]
        return ("train", "test") if self.test_path is not None and named else ("train",)

    def where(self, split: str) -> str:
        """See `BlockSource`."""
        return super().where("train" if self.test_path == AUTO else split)

    def left_out(self) -> Counter[str]:
        """The files of `path` that are of other splits, and what lies beside."""
        files = self._of_path[1]
        return super().left_out() + Counter(
            {name: len(found) for name, found in files.items() if name not in ("train", "test")}
        )

    def scan(self, place: Path) -> FileRows:
        """See `BlockSource`: the labels and captions are read."""
        with _opened(place) as file:
            schema, metadata = file.schema_arrow, file.metadata
            columns = find_columns(schema, self._names, str(place), bool(self._class_names))
            read = [name for name in columns[1:] if name is not None]
            names = () if columns.label is None else class_names_of(schema, columns.label)
            id_of = None
            if columns.label is not None and holds_names(schema, columns.label):
                names = self._class_names
                id_of = _numbered(names)
            counts, ids, texts, known = list[int](), list[int](), list[list[str]](), dict[str, str]()
            for number in range(metadata.num_row_groups):
                _refuse_unreadable(metadata.row_group(number), number, columns.image, leaf_of(schema, columns.image))
                first, count = sum(counts), metadata.row_group(number).num_rows
                counts.append(count)
                rows = 0
                for batch in _batches(file, number, read, _READ) if read else ():
                    if columns.label is not None:
                        ids += _ids(batch[columns.label], len(names) or MAX_CLASS + 1, id_of, first + rows)
                    if columns.caption is not None:
                        texts += _captions(batch[columns.caption], first + rows, known)
                    rows += len(batch[read[0]])
                if read and rows != count:
                    raise ValueError(f"row group {number} has {rows:,} rows, and notes {count:,}")
        return FileRows(
            np.array(counts, np.int64),
            np.array(ids, np.int64),
            np.zeros((sum(counts), 0), np.int64),
            names,
            None if columns.caption is None else Captions.pack(texts, lambda row: f"row {row} of {place}"),
        )

    def read_block(
        self, place: Path, number: int, extents: NDArray[np.int64], whole: bool
    ) -> Sequence[bytes | memoryview]:
        """See `BlockSource`: a whole row group, which is compressed as one; empty where a row has no image."""
        images: list[bytes | memoryview] = []
        with _opened(place) as file:
            leaf = leaf_of(file.schema_arrow, self._names.image)
            for batch in _batches(file, number, [leaf], _IMAGES_READ):
                values = batch[self._names.image]
                values = values.flatten()[0] if leaf != self._names.image else values
                images += [memoryview(value.as_buffer()) if value.is_valid else b"" for value in values]
        if len(images) != len(extents):
            raise ValueError(f"row group {number} has {len(images):,} images, and {len(extents):,} were indexed")
        large = next((row for row, image in enumerate(images) if len(image) > MAX_BYTES), None)
        if large is not None:
            text = f"image {large} of row group {number} has {len(images[large]):,} bytes"
            raise ValueError(f"{text}; allowed: at most {MAX_BYTES:,}")
        return images

    def row_name(self, place: Path, number: int, row: int) -> str:
        """See `BlockSource`: the row's place in its file, from 0 up."""
        with _opened(place) as file:
            before = sum(file.metadata.row_group(each).num_rows for each in range(number))
        return f"row {before + row} of {place}"

    @property
    def _names(self) -> Columns:
        """What the columns are called, in every file as in the first."""
        if self._found is None:
            folder, names = self._listed("train")
            first = folder / names[0]
            with _schema_of(first) as schema:
                self._found = find_columns(schema, self._wanted, str(first))
        return self._found

    @functools.cached_property
    def _class_names(self) -> tuple[str, ...]:
        """The names of the classes by the first file to train on; none where it has none."""
        folder, names = self._listed("train")
        with _schema_of(folder / names[0]) as schema:
            return () if self._names.label is None else class_names_of(schema, self._names.label)

    @functools.cached_property
    def _are_tests_named(self) -> bool:
        """Whether the labels of some file to test with are names of classes."""
        label, (folder, names) = self._names.label, self._listed("test")
        for name in names:
            with _schema_of(folder / name) as schema:
                if label is not None and label in schema.names and holds_names(schema, label):
                    return True
        return False

    def _reading(self) -> str:
        return f" {tuple(self._names)}"

    def _stamp(self, split: str) -> str:
        """See `BlockSource`; what test images are labelled with may be the names of the classes of others."""
        named = split == "test" and self._class_names and self._are_tests_named
        return super()._stamp(split) + (f" {self._class_names}" if named else "")

    def _list(self, split: str) -> tuple[Path, list[str]]:
        if split == "test" and self.test_path != AUTO:
            return super()._list(split)
        folder, files = self._of_path
        return folder, files[split]

    @functools.cached_property
    def _of_path(self) -> tuple[Path, dict[str, list[str]]]:
        """The folder of `path`, and its files by what they are: "train", "test", and others, which are left out."""
        folder, names = super()._list("train")
        of: dict[str, list[str]] = {}
        for name in names:
            of.setdefault(_split_of(name), []).append(name)
        if "train" not in of:
            found = " and ".join(sorted(filter(None, of)))
            if found and folder == Path(self.path or "").expanduser():  # no single file
                text = f"holds files of {found}, and none of train; give one of the files, or rename those to train on"
                raise UserError(f"data.path={self.path}: {text}")
            return folder, {"train": names}
        held = next((each for each in ("validation", "test") if each in of), None) if self.test_path == AUTO else None
        renamed = {"train": "train"} | ({} if held is None else {held: "test"})
        return folder, {renamed.get(each, f"{each or 'other'} file"): found for each, found in of.items()}


def _split_of(name: str) -> str:
    """The split that the last word of a file's path says which is a split's; "" where none is."""
    return next((SPLITS[word] for word in reversed(re.split(r"[^a-z]+", name.lower())) if word in SPLITS), "")


@contextmanager
def _opened(place: Path) -> Iterator[Any]:
    """An open file. What pyarrow raises is a ValueError of one line."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        # No threads: a worker process that is forked has none of its parent's.
        with ParquetFile(place, pre_buffer=False, page_checksum_verification=True) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:  # the system's
            raise
        text = str(error).partition("\n")[0].rstrip(".")
        if not isinstance(error, (pyarrow.ArrowInvalid, OSError)):
            raise ValueError(f"pyarrow cannot read it: {text}") from error
        raise ValueError(f"{text}: no Parquet file, or cut short or damaged; copy it again") from error


@contextmanager
def _schema_of(place: Path) -> Iterator[Any]:
    """The schema of a file. Whatever is wrong with it is a UserError."""
    try:
        with _opened(place) as file:
            yield file.schema_arrow
    except UserError:
        raise
    except Exception as error:  # a damaged file makes its reader raise anything
        raise UserError(f"{place}: cannot be opened ({error})") from error


def _refuse_unreadable(group: Any, number: int, image: str, leaf: str) -> None:
    """Refuse a row group whose images are too many to be held, or are paths alone."""
    chunks = _chunks(group, leaf)
    known = [chunk.statistics for chunk in chunks if chunk.is_stats_set and chunk.statistics.has_null_count]
    if leaf != image and group.num_rows and any(each.null_count == group.num_rows for each in known):
        raise ValueError(
            f"row group {number} has no bytes of images in {image}, but paths at most; write the bytes too"
        )
    size = sum(chunk.total_uncompressed_size for chunk in chunks)
    if size > _MAX_GROUP:
        text = f"row group {number} has {size:,} bytes of images, and is held whole; allowed: at most {_MAX_GROUP:,}"
        raise ValueError(f"{text}; write the file again in smaller ones, with row_group_size=1000")


def _chunks(group: Any, *columns: str) -> list[Any]:
    """What a row group notes of the columns, or of all that are inside them."""
    chunks = [group.column(place) for place in range(group.num_columns)]
    inside = tuple(f"{column}." for column in columns)
    return [each for each in chunks if each.path_in_schema in columns or each.path_in_schema.startswith(inside)]


def _batches(file: Any, number: int, columns: list[str], most: int) -> Iterator[dict[str, Any]]:
    """The columns of a row group by their names, at most so many rows at a time.

    Raises:
        ValueError: as soon as they take too many bytes for what the row group takes in its file.
    """
    from pyarrow.types import is_dictionary

    group = file.metadata.row_group(number)
    stored = sum(group.column(place).total_compressed_size for place in range(group.num_columns))
    limit = max(LARGE, MAX_RATIO * stored)
    what = f"{limit:,} bytes of {' and '.join(columns)}, too many for its size"
    too_many = ValueError(f"row group {number} decompresses to more than {what}")
    whole = sum(chunk.total_uncompressed_size for chunk in _chunks(group, *columns))
    if whole > limit:
        raise too_many
    # What rows share stands once in the file, so that each of them may take as much as the whole.
    rows, read = max(1, min(most, limit // max(whole, 1))), 0
    for batch in file.iter_batches(rows, row_groups=[number], columns=columns, use_threads=False):
        plain = [column.dictionary_decode() if is_dictionary(column.type) else column for column in batch.columns]
        read += sum(column.nbytes for column in plain)
        if read > limit:
            raise too_many
        yield dict(zip(batch.schema.names, plain, strict=True))


def _numbered(names: Sequence[str]) -> dict[str, int]:
    """The class id of each name.

    Raises:
        ValueError: when two classes have one name.
    """
    id_of = {name: number for number, name in enumerate(names)}
    if len(id_of) < len(names):
        name, number = Counter(names).most_common(1)[0]
        text = f"its labels are names of classes, of which {number} are called {visible(name)} in the training images"
        raise ValueError(f"{text}; allowed: whole numbers, or data.label=null for no classes")
    return id_of


def _ids(column: Any, number: int, id_of: Mapping[str, int] | None, first: int) -> list[int]:
    """The class ids of rows.

    Args:
        column: their labels: class ids, or names of classes.
        number: of classes there may be.
        id_of: by the names of the classes, where the labels are these; else None.
        first: the place of the first row in its file.

    Raises:
        ValueError: when a row has none.
    """
    values = column.to_pylist()
    ids = values if id_of is None else [id_of.get(each) for each in values]
    wrong = next((row for row, each in enumerate(ids) if each is None or not 0 <= each < number), None)
    if wrong is not None:
        value = values[wrong]
        has = "no label" if value is None else f"the label {visible(str(value))}"
        allowed = f"whole numbers from 0 to {number - 1}"
        if id_of is not None:
            allowed = ", ".join(map(visible, itertools.islice(id_of, _SHOWN))) + ", ..." * (number > _SHOWN)
        allowed += ", or data.label=null for no classes"
        if value is None or value == _UNLABELLED:
            allowed += ", or data.test_path=null where test images alone have none"
        raise ValueError(f"row {first + wrong} has {has}; allowed: {allowed}")
    return [each for each in ids if each is not None]


def _captions(column: Any, first: int, known: dict[str, str]) -> list[list[str]]:
    """The captions of rows, of which the first has that place in its file; each text that is known is held once."""
    found = []
    for row, value in enumerate(column.to_pylist()):
        texts = [value] if isinstance(value, str) else value or []
        if any(text is None or len(text) > MAX_CAPTION_BYTES for text in texts):
            allowed = f"a text of at most {MAX_CAPTION_BYTES:,} letters"
            raise ValueError(f"row {first + row} has an empty or too long caption; allowed: {allowed}")
        found.append([known.setdefault(text, text) for text in map(str.strip, texts)])
    return found
