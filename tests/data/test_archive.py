"""Archives as they are met: links in circles, separators of Windows, two files of one name, cut tars, bombs."""

import errno
import io
import os
import socket
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from langevin.data.archive import counted, open_archive
from langevin.data.image_folder import ImageFolder
from langevin.errors import UserError


def names(path):
    return open_archive(str(path), "data.path").names


def left_out(path):
    return counted(open_archive(str(path), "data.path").left_out)


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path


def make_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def tree(tmp_path):
    """A folder with cat/1, cat/2 and dog/3."""
    for name in ("cat/1", "cat/2", "dog/3"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "tree"


@pytest.mark.parametrize("target", [".", "..", "cat", "../tree", "/"])
@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_a_link_into_or_above_the_folder_adds_nothing(tree, target, name):
    (tree / name).symlink_to(target)
    assert names(tree) == ("cat/1", "cat/2", "dog/3")
    assert left_out(tree) == "1 repeated folder link"


def test_links_in_a_circle_outside_are_each_read_once(tree, tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / "store" / name).mkdir(parents=True)
        (tmp_path / "store" / name / "file").write_text(name)
        (tmp_path / "store" / name / "other").symlink_to(tmp_path / "store" / other)
    (tree / "one").symlink_to(tmp_path / "store" / "a")
    (tree / "two").symlink_to(tmp_path / "store" / "b")
    assert [name for name in names(tree) if name.endswith("file")] == ["one/file", "one/other/file"]
    (tree / "up").symlink_to(tmp_path / "store")
    assert sum(name.endswith("file") for name in names(tree)) == 2


def test_what_is_no_regular_file_is_left_out(tree):
    os.mkfifo(tree / "cat" / "fifo.png")
    (tree / "dog" / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket.png"))
        assert names(tree) == ("cat/1", "cat/2", "dog/3")
        assert left_out(tree) == "3 special files"


def test_a_path_that_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(UserError, match="neither a folder nor"):
            open_archive(str(path), "data.path")


def test_a_folder_that_cannot_be_listed_is_named(tree, monkeypatch):
    scandir = os.scandir

    def refuse(place):  # root, as whom tests may run, may list every folder
        if str(place).endswith("cat/"):
            raise PermissionError(errno.EACCES, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"tree/cat/: cannot be listed \(Permission denied\)"):
        names(tree)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_separators_of_windows(make, tmp_path, pixels, write):
    content = Path(write({"a.png": pixels(0)}), "a.png").read_bytes()
    files = [(f"ds\\{name}\\1.png", content) for name in ("cat", "dog")]
    path = make(tmp_path / "windows", files)
    image_set = ImageFolder(str(path), image_size=10).load("train")
    assert image_set.class_names == ("cat", "dog")
    assert image_set.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(np.asarray(image_set.lazy.open(1)), pixels(0))


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("second", ["cat/1.png", "./cat/1.png", "cat\\1.png"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused(make, second, tmp_path):
    path = make(tmp_path / "twice", [("cat/1.png", b"a"), (second, b"b")])
    with pytest.raises(UserError, match=r"data\.path=.*twice: .*two files in it are called cat/1\.png"):
        open_archive(str(path), "data.path")


def test_every_cut_of_a_tar_is_refused(tmp_path):
    whole = make_tar(tmp_path / "whole.tar", [(f"{i}.png", bytes([i]) * 300) for i in range(1, 6)]).read_bytes()
    assert len(names(tmp_path / "whole.tar")) == 5
    end = 5 * 1024 + 1024  # after this only padding is lost
    cuts = np.random.default_rng(0).integers(1, end, 60).tolist()
    for cut in [*cuts, 512, 1024, 5 * 1024, end - 512, end - 1]:
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"data\.path=.*(cut short|neither a folder nor a complete|unpack it)"):
            names(tmp_path / "cut.tar")
    (tmp_path / "cut.tar").write_bytes(whole[:end])
    assert len(names(tmp_path / "cut.tar")) == 5


def test_a_damaged_header_within_a_tar_is_refused(tmp_path):
    content = bytearray(make_tar(tmp_path / "x.tar", [(f"{i}.png", b"x") for i in range(4)]).read_bytes())
    content[2 * 1024 + 150] ^= 1
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(UserError, match="cut short or damaged"):
        names(tmp_path / "x.tar")


def test_links_in_a_tar(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"content")
    os.link(tmp_path / "in" / "a.png", tmp_path / "in" / "b.png")
    (tmp_path / "in" / "c.png").symlink_to("a.png")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "in", ".")
    archive = open_archive(str(tmp_path / "x.tar"), "data.path")
    assert archive.names == ("a.png", "b.png")
    assert archive.read("a.png") == archive.read("b.png") == b"content"
    assert counted(archive.left_out) == "1 archived link"


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_file_is_read_up_to_a_limit(kind, tmp_path):
    content = bytes(5000)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_bytes(content)
    make_zip(tmp_path / "zip", [("a", content)])
    make_tar(tmp_path / "tar", [("a", content)])
    archive = open_archive(str(tmp_path / kind), "data.path")
    assert archive.read("a") == content
    with pytest.raises(ValueError, match="5,000 bytes; allowed: at most 4,999"):
        archive.read("a", limit=4999)


def test_a_bomb_in_a_zip(tmp_path):
    archive = open_archive(str(make_zip(tmp_path / "x.zip", [("a.png", bytes(2**24 + 1))])), "data.path")
    with pytest.raises(ValueError, match="bytes decompress to 16,777,217"):
        archive.read("a.png")


def test_names_that_no_terminal_can_show(tmp_path):
    for name in (b"caf\xe9.png", b"\x1b[2J.png", "né.png".encode()):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    (tmp_path / os.fsdecode(b"x.\xe9")).write_bytes(b"")
    source = ImageFolder(str(tmp_path), image_size=8)
    lazy_images = source.load("train").lazy
    assert source.fingerprint("train")
    assert [lazy_images.name(i) for i in range(3)] == [
        f"{name}.png in {tmp_path}" for name in (r"\x1b[2J", r"caf\udce9", "né")
    ]
    assert counted(source.left_out()) == r"1 .\udce9 file"


def test_a_zip_that_unfolds_to_more_than_it_says(tmp_path):
    path = make_zip(tmp_path / "x.zip", [("a.png", bytes(10**6))])
    lying = path.read_bytes().replace((10**6).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    path.write_bytes(lying)
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        open_archive(str(path), "data.path").read("a.png")
