"""Files by name, wherever they lie: in a folder, a zip or a plain tar."""

import functools
import hashlib
import os
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from langevin.errors import UserError


class Archive(ABC):
    """Read-only files under relative names with forward slashes. Reading is safe from many threads at once.

    Attributes:
        path: the folder or file on disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The name of every file, sorted; hidden files and what macOS adds to a zip are left out."""
        return tuple(sorted(name for name in self._list() if not _is_hidden(name)))

    def fingerprint(self, names: Iterable[str]) -> str:
        """Digest the content of the named files without reading it all: it changes when one of them does."""
        digest = hashlib.sha256()
        for name in names:
            digest.update(repr((name, *self._stamp(name))).encode())
        return digest.hexdigest()

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is such a file, found without listing a folder."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return a file's bytes."""

    @abstractmethod
    def _list(self) -> Iterable[str]: ...

    @abstractmethod
    def _stamp(self, name: str) -> tuple[int, ...]: ...


class Folder(Archive):
    """The files of a folder and its subfolders; a file is known by its size and time of change."""

    def exists(self, name: str) -> bool:  # noqa: D102
        return (self.path / name).is_file()

    def read(self, name: str) -> bytes:  # noqa: D102
        return (self.path / name).read_bytes()

    def _list(self) -> Iterable[str]:
        # Class folders that are links into another disk are common on clusters, hence followlinks.
        for folder, subfolders, files in os.walk(self.path, followlinks=True):
            subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
            prefix = Path(folder).relative_to(self.path).as_posix()
            yield from (name if prefix == "." else f"{prefix}/{name}" for name in files)

    def _stamp(self, name: str) -> tuple[int, ...]:
        status = os.stat(self.path / name)
        return status.st_size, status.st_mtime_ns


class Zip(Archive):
    """The files of a zip; a file is known by the size and CRC in the zip's directory."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._zip = zipfile.ZipFile(path)

    def exists(self, name: str) -> bool:  # noqa: D102
        return name in self._zip.NameToInfo

    def read(self, name: str) -> bytes:  # noqa: D102
        return self._zip.read(name)

    def _list(self) -> Iterable[str]:
        return (info.filename for info in self._zip.infolist() if not info.is_dir())

    def _stamp(self, name: str) -> tuple[int, ...]:
        info = self._zip.getinfo(name)
        return info.file_size, info.CRC


class Tar(Archive):
    """The files of an uncompressed tar; a file is known by its size and time of change."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with tarfile.open(path, "r:") as tar:
            members = [member for member in tar if member.isfile()]
        self._members = {m.name.removeprefix("./"): (m.offset_data, m.size, int(m.mtime)) for m in members}

    def exists(self, name: str) -> bool:  # noqa: D102
        return name in self._members

    def read(self, name: str) -> bytes:  # noqa: D102
        offset, size, _ = self._members[name]
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def _list(self) -> Iterable[str]:
        return self._members

    def _stamp(self, name: str) -> tuple[int, ...]:
        return self._members[name]


def open_archive(path: str, option: str) -> Archive:
    """Open a folder, a zip or an uncompressed tar.

    Args:
        path: what the user gave; ``~`` is expanded.
        option: the name of the option that gave it, for the message.

    Raises:
        UserError: when there is nothing at `path`, it cannot be read, or it is none of the three.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(f"{option}={path}: there is no such file or folder (looked for {place.absolute()})")
    try:
        if place.is_dir():
            os.listdir(place)  # a folder without permission would otherwise look empty
            return Folder(place)
        if zipfile.is_zipfile(place):
            return Zip(place)
        if tarfile.is_tarfile(place):
            return Tar(place)
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        compressed = "; a tar must not be compressed: unpack it" if isinstance(error, tarfile.TarError) else ""
        raise UserError(f"{option}={path}: cannot be opened ({error}){compressed}") from error
    raise UserError(f"{option}={path}: this is neither a folder nor a whole zip or tar file")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
