"""Small archives of images made on the spot, and the shared real images where they are."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def shared():
    """Gives the path of a shared real data file, or skips the test."""

    def find(name):
        if not (SHARED / name).exists():
            pytest.skip(f"the shared images are not there: {SHARED / name}")
        return SHARED / name

    return find


@pytest.fixture
def pixels():
    """Smooth random colour pixels (height, width, 3): `pixels(seed, height, width)`."""

    def make(seed, height=10, width=10):
        noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))

    return make


def encode(array, suffix):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF"}.get(suffix.lower(), suffix))
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path):
    """Writes {name: uint8 array or bytes or JSON value} into a folder or zip and returns its path."""

    def write(files, name="images", folder=tmp_path):
        path = folder / name
        contents = {
            file: content
            if isinstance(content, bytes)
            else encode(content, file.rpartition(".")[2])
            if isinstance(content, np.ndarray)
            else json.dumps(content).encode()
            for file, content in files.items()
        }
        if name.endswith(".zip"):
            with zipfile.ZipFile(path, "w") as archive:
                for file, content in contents.items():
                    archive.writestr(file, content)
        else:
            for file, content in contents.items():
                (path / file).parent.mkdir(parents=True, exist_ok=True)
                (path / file).write_bytes(content)
        return str(path)

    return write
