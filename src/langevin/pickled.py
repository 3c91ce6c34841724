"""Reads the beginning of what `torch.save` has pickled, at a cost that does not grow with the number of tensors."""

import os
import struct
from pathlib import Path

END = struct.Struct("<4s4H2LH")
"""The last record of a zip archive (APPNOTE.TXT, section 4.3.16)."""
LOCATOR = struct.Struct("<4sLQL")
"""What stands before it in an archive with 64-bit offsets (section 4.3.15)."""
LARGE_END = struct.Struct("<4sQ2H2L4Q")
"""The last record of the directory in such an archive (section 4.3.14)."""
ENTRY = struct.Struct("<4s6H3L5H2L")
"""An entry of the directory (section 4.3.12), without its name."""
HEADER = struct.Struct("<4s5H3L2H")
"""What stands before an entry's content (section 4.3.7), without its name."""
STORED = 0
IN_LOCATOR = 0xFFFFFFFF
"""Stands for an offset that 32 bits cannot hold."""
BEGINNING = 1 << 16
"""Bytes that are read of a pickle."""


def beginning_of_pickle(path: Path) -> bytes:
    """The first bytes, `BEGINNING` at most, of the pickle in a file of `torch.save`.

    `zipfile` reads the directory of all entries first, one for each tensor, which takes most of the time where only the
    step of a checkpoint is asked for. Here only the two ends of that directory are read: a file that was cut has
    neither.

    Raises:
        ValueError: when it is no whole archive whose first entry is a pickle, uncompressed, as torch.save writes it.
        OSError: when it cannot be read.
        struct.error: when it is too short.
    """
    with path.open("rb") as file:
        file.seek(-END.size, os.SEEK_END)
        end = END.unpack(file.read(END.size))
        _require(end[0] == b"PK\5\6" and end[-1] == 0)
        start = end[-2]
        if start == IN_LOCATOR:
            file.seek(-END.size - LOCATOR.size, os.SEEK_END)
            locator = LOCATOR.unpack(file.read(LOCATOR.size))
            _require(locator[0] == b"PK\6\7")
            file.seek(locator[2])
            large = LARGE_END.unpack(file.read(LARGE_END.size))
            _require(large[0] == b"PK\6\6")
            start = large[-1]
        file.seek(start)
        entry = ENTRY.unpack(file.read(ENTRY.size))
        name = file.read(entry[10])
        _require(entry[0] == b"PK\1\2" and entry[4] == STORED and name.endswith(b"/data.pkl"))
        file.seek(entry[-1])
        header = HEADER.unpack(file.read(HEADER.size))
        _require(header[0] == b"PK\3\4")
        file.seek(header[-2] + header[-1], os.SEEK_CUR)
        return file.read(min(entry[9], BEGINNING))


def _require(is_met: bool) -> None:
    if not is_met:
        raise ValueError("no whole file of torch.save")
