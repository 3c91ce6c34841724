"""Files by name, wherever they lie: in a folder, a zip or a plain tar."""

import functools
import hashlib
import heapq
import os
import stat
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from langevin.errors import UserError
from langevin.visible import visible

MAX_BYTES = 2**28
"""The largest file that is read as an image: a few bytes of a zip can decompress to gigabytes."""
MAX_RATIO = 100  # of a large file's size to its size in a zip: an image is compressed already, a bomb 1000 times
LARGE = 2**24
_BLOCK = 512  # of a tar
_SHOWN = 5  # kinds of files that a message names


class Archive(ABC):
    """Read-only regular files under relative names with forward slashes. Reading is safe from many threads at once.

    Attributes:
        path: the folder or file on disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._left_out: Counter[str] = Counter()

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The name of every file, sorted; hidden files and what macOS adds to a zip are left out.

        Raises:
            UserError: when a subfolder cannot be listed.
        """
        return tuple(sorted(name for name in self._list() if not _is_hidden(name)))

    @property
    def left_out(self) -> Counter[str]:
        """The number of entries that are not regular files, or lead to a folder already listed, by kind."""
        _ = self.names
        return self._left_out

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """Return a file's bytes.

        Raises:
            ValueError: when it has more than `limit` bytes.
        """
        size = self._stamp(name)[0]
        if size > limit:
            raise ValueError(f"it has {size:,} bytes; allowed: at most {limit:,}")
        return self._read(name)

    def fingerprint(self, names: Iterable[str]) -> str:
        """Digest the content of the named files without reading it all: it changes when one of them does."""
        digest = hashlib.sha256()
        for name in names:
            digest.update(repr((name, *self._stamp(name))).encode())
        return digest.hexdigest()

    def is_dangling(self, name: str) -> bool:
        """Whether the name is a link whose target is not there."""
        return False

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is such a file, found without listing a folder."""

    @abstractmethod
    def _list(self) -> Iterable[str]: ...

    @abstractmethod
    def _read(self, name: str) -> bytes: ...

    @abstractmethod
    def _stamp(self, name: str) -> tuple[int, ...]:
        """The file's size, then other values that change with its content."""


class Folder(Archive):
    """The files of a folder and its subfolders; a file is known by its size and time of change.

    Links are followed, for class folders that are links into another disk are common on clusters. Each folder is listed
    once, under its own name where it lies in this one; a link that leads back up is not followed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._place = os.fspath(path)

    def exists(self, name: str) -> bool:  # noqa: D102
        return (self.path / name).is_file()

    def is_dangling(self, name: str) -> bool:  # noqa: D102
        return not os.path.exists(self.path / name)

    def _list(self) -> Iterator[str]:
        seen: set[tuple[int, int]] = set()
        folders, links = [""], list[str]()
        while folders or links:
            # Links last, and in order: a folder's own name goes before any link's.
            prefix = folders.pop() if folders else heapq.heappop(links)
            place = os.path.join(self.path, prefix)
            if self._is_repeated(place.rstrip("/"), seen, is_root=not prefix):
                self._left_out["repeated folder link"] += 1
                continue
            for entry in self._entries(place):
                name = prefix + entry.name
                if _is_hidden(entry.name):
                    continue
                match _kind_of(entry):
                    case "folder":
                        folders.append(f"{name}/")
                    case "linked folder":
                        heapq.heappush(links, f"{name}/")
                    case "file":
                        yield name
                    case _:
                        self._left_out["special file"] += 1

    def _is_repeated(self, place: str, seen: set[tuple[int, int]], is_root: bool) -> bool:
        if not is_root and os.path.islink(place):
            target, here = os.path.realpath(place), os.path.realpath(os.path.dirname(place))
            if os.path.commonpath((target, here)) == target:
                return True
        status = os.stat(place)
        key = (status.st_dev, status.st_ino)
        if key in seen and status.st_ino:  # some network disks have no inode numbers
            return True
        seen.add(key)
        return False

    def _entries(self, place: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(place) as entries:
                return list(entries)
        except OSError as error:
            raise UserError(f"{place}: cannot be listed ({error.strerror})") from error

    def _read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def _stamp(self, name: str) -> tuple[int, ...]:
        try:
            status = os.stat(f"{self._place}/{name}")
        except OSError:  # a dangling link: reading it reports the error
            return -1, -1
        return status.st_size, status.st_mtime_ns


class Zip(Archive):
    """The files of a zip; a file is known by the size and CRC in the zip's directory.

    Raises:
        ValueError: when two files have one name.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._zip = zipfile.ZipFile(path)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            name = _clean(info.filename)
            if info.filename.endswith(("/", "\\")) or _is_hidden(name):
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                self._left_out["archived link"] += 1
                continue
            if name in self._infos:
                raise ValueError(f"two files in it are called {name}; recreate the zip")
            self._infos[name] = info

    def exists(self, name: str) -> bool:  # noqa: D102
        return name in self._infos

    def _list(self) -> Iterable[str]:
        return self._infos

    def _read(self, name: str) -> bytes:
        info = self._infos[name]
        if info.file_size > max(LARGE, MAX_RATIO * info.compress_size):
            raise ValueError(
                f"its {info.compress_size:,} bytes decompress to {info.file_size:,}, too many for an image file"
            )
        with self._zip.open(info) as file:
            return file.read(info.file_size)  # never more than the directory's size, whatever the data decompresses to

    def _stamp(self, name: str) -> tuple[int, ...]:
        info = self._infos[name]
        return info.file_size, info.CRC


class Tar(Archive):
    """The files of an uncompressed tar; a file is known by its size and time of change.

    Raises:
        ValueError: when the tar is compressed or cut short, or two files have one name.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._members: dict[str, tuple[int, int, int]] = {}
        try:
            tar = tarfile.open(path, "r:")  # noqa: SIM115
        except tarfile.TarError as error:
            text = "a tar must not be compressed, empty or damaged: unpack it, or copy it again"
            raise ValueError(f"{error}; {text}") from error
        with tar:
            try:
                for member in tar:
                    self._add(member)
            except tarfile.TarError as error:
                raise ValueError(f"{error}: the tar is cut short or damaged; copy it again") from error
            end = tar.offset
        # Without this a tar cut between two members, or with a damaged header, would only have fewer files.
        with open(path, "rb") as file:
            file.seek(end)
            if file.read(2 * _BLOCK) != bytes(2 * _BLOCK):
                raise ValueError(f"no end mark at byte {end:,}: the tar is cut short or damaged; copy it again")

    def _add(self, member: tarfile.TarInfo) -> None:
        name = _clean(member.name)
        if member.isdir() or _is_hidden(name):
            return
        if member.islnk() and _clean(member.linkname) in self._members:  # a second name of a file's content
            place = self._members[_clean(member.linkname)]
        elif member.isreg() and not member.issparse():
            place = (member.offset_data, member.size, int(member.mtime))
        else:
            self._left_out["archived link" if member.issym() or member.islnk() else "special file"] += 1
            return
        if name in self._members:
            raise ValueError(f"two files in it are called {name}; recreate the tar")
        self._members[name] = place

    @functools.cached_property
    def stored(self) -> dict[str, tuple[int, int]]:
        """Where each file begins in the tar, and its size, by its name and in their order there."""
        return {name: (offset, size) for name, (offset, size, _) in self._members.items()}

    def exists(self, name: str) -> bool:  # noqa: D102
        return name in self._members

    def _list(self) -> Iterable[str]:
        return self._members

    def _read(self, name: str) -> bytes:
        offset, size, _ = self._members[name]
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def _stamp(self, name: str) -> tuple[int, ...]:
        return self._members[name][1:]


class Shards(Archive):
    """The files of a folder's plain tars, as if each were a subfolder of its name.

    A tar is known by its size and time of change, so that none is read before its files are.

    Args:
        folder: holds them.
        tars: their names, in order.
    """

    def __init__(self, folder: Folder, tars: Sequence[str]) -> None:
        super().__init__(folder.path)
        self._folder = folder
        self._names = tuple(tars)

    def fingerprint(self, names: Iterable[str]) -> str:  # noqa: D102
        return self._folder.fingerprint(self._names)

    def exists(self, name: str) -> bool:  # noqa: D102
        tar, _, rest = name.partition(".tar/")
        return f"{tar}.tar" in self._tars and self._tars[f"{tar}.tar"].exists(rest)

    @functools.cached_property
    def _tars(self) -> dict[str, Tar]:
        tars = {}
        for name in self._names:
            try:
                tars[name] = Tar(self.path / name)
            except (OSError, ValueError, tarfile.TarError) as error:
                raise UserError(f"{self.path / name}: cannot be opened ({error})") from error
        self._left_out.update(sum((tar.left_out for tar in tars.values()), Counter()))
        return tars

    def _list(self) -> Iterable[str]:
        return (f"{name}/{file}" for name, tar in self._tars.items() for file in tar.names)

    def _read(self, name: str) -> bytes:
        tar, rest = self._found(name)
        return tar._read(rest)

    def _stamp(self, name: str) -> tuple[int, ...]:
        tar, rest = self._found(name)
        return tar._stamp(rest)

    def _found(self, name: str) -> tuple[Tar, str]:
        tar, _, rest = name.partition(".tar/")
        return self._tars[f"{tar}.tar"], rest


def open_archive(path: str, option: str) -> Archive:
    """Open a folder, a zip or an uncompressed tar.

    Args:
        path: what the user gave; ``~`` is expanded.
        option: the name of the option that gave it, for the message.

    Raises:
        UserError: when there is nothing at `path`, it cannot be read, or it is none of the three.
    """
    refuse_empty(path, option)
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(f"{option}={path}: there is no such file or folder (looked for {place.absolute()})")
    try:
        if place.is_dir():
            os.listdir(place)  # a folder without permission would otherwise look empty
            return Folder(place)
        if place.is_file():  # opening a FIFO would wait for its other end
            if zipfile.is_zipfile(place):
                return Zip(place)
            if tarfile.is_tarfile(place):
                return Tar(place)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise UserError(f"{option}={path}: cannot be opened ({error})") from error
    raise UserError(f"{option}={path}: this is neither a folder nor a complete zip or tar file")


def refuse_empty(path: str, option: str) -> None:
    """Refuse the path that a shell makes of a variable without a value: it would mean the current folder.

    Raises:
        UserError: when it has no letter.
    """
    if not path:
        raise UserError(f"{option}=: has no value; give a path, or . for the current folder")


def file_kind(name: str) -> str:
    """What kind of file it is by its name, such as ".heic file"."""
    suffix = PurePosixPath(name).suffix.lower()
    return f"{suffix} file" if suffix else "suffixless file"


def holding(archive: Archive) -> str:
    """What there is where nothing was found that can be read, for the end of a message."""
    kinds = Counter(map(file_kind, archive.names))
    shown = counted(Counter(dict(kinds.most_common(_SHOWN))))
    return f"; it holds {shown}{', and others' * (len(kinds) > _SHOWN)}" if kinds else ""


def counted(left_out: Counter[str]) -> str:
    """What is left out, in words: "12 .heic files, 1 special file"."""
    return ", ".join(f"{number:,} {visible(what)}{'s' * (number > 1)}" for what, number in sorted(left_out.items()))


def _clean(name: str) -> str:
    """A name in an archive with forward slashes: some programs on Windows write its own."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _is_hidden(name: str) -> bool:
    if name[:1] != "." and "/." not in name and "__MACOSX" not in name:  # most: a path a name costs seconds a million
        return False
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _kind_of(entry: os.DirEntry[str]) -> str:
    """What an entry is: "folder", "linked folder", "file" (also a link to one, or to nothing) or "special"."""
    if not entry.is_symlink():
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        return "file" if entry.is_file(follow_symlinks=False) else "special"
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "file"
    return "linked folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "special"
