"""Images in blocks, in each kind of file that has them."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from langevin.data.blocks import BlockSource
from langevin.data.parquet import Parquet
from langevin.data.tar_shards import TarShards


class Row(NamedTuple):
    """One image.

    Attributes:
        image: its file's bytes.
        suffix: its file's.
        label: its class id.
        captions: one or several.
    """

    image: bytes
    suffix: str
    label: int
    captions: Sequence[str]


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    """A tar of some files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_parquet(path: Path, groups: Sequence[dict[str, Sequence[Any]]], schema: Any) -> None:
    """A Parquet file, of which each group of rows is one of its row groups."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema) as writer:
        for group in groups:
            writer.write_table(pa.table(group, schema))


def schema_of(features: dict[str, Any] | None = None, **types: Any) -> Any:
    """A schema with the features that Hugging Face's datasets notes."""
    pa = pytest.importorskip("pyarrow")
    noted = None if features is None else {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(list(types.items()), metadata=noted)


class Tars:
    """Tar shards: a block each."""

    source: ClassVar[type[BlockSource]] = TarShards
    name = "tar_shards"
    captions: ClassVar[dict[str, Any]] = {"captions": True}

    @staticmethod
    def write(folder: Path, blocks: Sequence[Sequence[Row]]) -> None:
        """Write a file a block."""
        number = 0
        for shard, rows in enumerate(blocks):
            files = {}
            for row in rows:
                files[f"{number:03}.{row.suffix}"] = row.image
                files[f"{number:03}.json"] = json.dumps({"label": row.label, "text": list(row.captions)}).encode()
                if number % 2:
                    files[f"{number:03}.txt"] = "\n".join(row.captions).encode()
                if number == 7:
                    files[f"{number:03}.cls"] = f"{row.label}\n".encode()
                number += 1
            write_tar(folder / f"{shard}.tar", files)


class Parquets:
    """Parquet files as datasets writes them: two row groups a file."""

    source: ClassVar[type[BlockSource]] = Parquet
    name = "parquet"
    captions: ClassVar[dict[str, Any]] = {"caption": "texts"}

    @staticmethod
    def write(folder: Path, blocks: Sequence[Sequence[Row]]) -> None:
        """Write two blocks a file."""
        pa = pytest.importorskip("pyarrow")
        image, texts = pa.struct({"bytes": pa.binary(), "path": pa.string()}), pa.list_(pa.string())
        schema = schema_of({"img": {"_type": "Image"}}, texts=texts, img=image, label=pa.int64())
        groups = [
            {
                "img": [{"bytes": row.image, "path": f"1.{row.suffix}"} for row in rows],
                "label": [row.label for row in rows],
                "texts": [row.captions for row in rows],
            }
            for rows in blocks
        ]
        for file in range(0, len(groups), 2):
            write_parquet(folder / f"train-{file:05}.parquet", groups[file : file + 2], schema)


KINDS = (Tars, Parquets)
