"""Batches of tar shards and Parquet files, beside those of the cached loader."""

import io
import itertools
import os
import pickle
import tracemalloc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.block_files import KINDS, Row, Tars, write_tar
from helpers.data_modules import batches
from PIL import Image

from langevin.data.block_index import BlockIndex, FileRows
from langevin.data.block_module import BlockDataModule
from langevin.data.block_stream import BlockStream
from langevin.data.digits import Digits
from langevin.data.image_folder import ImageFolder
from langevin.data.module import DataModule
from langevin.data.summary import summary
from langevin.data.tar_shards import TarShards
from langevin.data.tokens import CaptionEncoder
from langevin.errors import OptionError, UserError


def encoded(array, kind="JPEG"):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


@pytest.fixture
def blocks(pixels):
    """Four blocks of 5, 3, 6 and 4 images of several sizes, formats and classes, with one to three captions each."""
    rows = []
    for number in range(18):
        kind, suffix = [("JPEG", "jpg"), ("PNG", "png")][number % 2]
        label = 30 if number == 7 else number % 3
        captions = [f"a {label} {nth}" for nth in range(1 + number % 3)]
        rows.append(Row(encoded(pixels(number, 9 + number, 14), kind), suffix, label, captions))
    return [rows[first:end] for first, end in itertools.pairwise((0, 5, 8, 14, 18))]


@pytest.fixture
def shards(tmp_path, blocks):
    """The blocks in four tars."""
    Tars.write(tmp_path / "shards", blocks)
    return tmp_path / "shards"


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request):
    """A kind of file that has blocks."""
    return request.param


@pytest.fixture
def files(kind, tmp_path, blocks):
    """The blocks in files of that kind."""
    kind.write(tmp_path / "files", blocks)
    return tmp_path / "files"


@pytest.fixture
def opened(tmp_path, request):
    made = request.getfixturevalue("kind").source if "kind" in request.fixturenames else TarShards

    def open_(path, batch_size=6, window=2, num_workers=0, given=(), **options):
        of_source = {name: options.pop(name) for name in ("flip", "test_path") if name in options}
        source = made(str(path), options.pop("image_size", 8), **of_source, **dict(given))
        options = {"cache_dir": str(tmp_path / "cache"), "num_workers": num_workers, **options}
        module = BlockDataModule(source, batch_size, window=window, **options)
        module.prepare_data()
        return module

    return open_


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_follow_the_stream_and_equal_the_cached_loaders(files, opened, tmp_path, num_workers):
    module = opened(files, seed=5, num_workers=num_workers)
    cached = DataModule(module.source, 6, cache_dir=str(tmp_path / "cache"))
    cached.prepare_data()
    assert module.class_names == cached.class_names == ("0", "1", "2", "30")
    stream = BlockStream([5, 3, 6, 4], 2, batch_size=6, seed=5, flip=True)
    for batch, (indices, flips, _) in zip(batches(module, 12), stream, strict=False):
        np.testing.assert_array_equal(batch["index"].numpy(), indices)
        np.testing.assert_array_equal(batch["flip"].numpy(), flips)
        np.testing.assert_array_equal(batch["x"].permute(0, 2, 3, 1).numpy(), cached.train_set.samples[indices])
        np.testing.assert_array_equal(batch["label"].numpy(), cached.train_set.labels[indices])


class Numbers:
    """An encoder of captions: the numbers in them."""

    def __init__(self):
        columns = {"text": ((2,), np.dtype(np.int64))}
        self.encoder = CaptionEncoder("numbers", columns, False, self.encode)

    def encode(self, texts):
        return {"text": np.array([text.split()[1:] for text in texts], np.int64)}


def test_batches_have_the_captions_of_the_cached_loaders(kind, files, opened, tmp_path, blocks):
    modules = [opened(files, given=kind.captions, seed=5, num_workers=number) for number in (0, 2)]
    modules.append(DataModule(modules[0].source, 6, cache_dir=str(tmp_path / "cache")))
    for module in modules:
        module.prepare_data()
        module.tokenize(Numbers().encoder)
    first, second, cached = modules
    wanted = [list(row.captions) for row in itertools.chain(*blocks)]
    assert [first.train_set.captions.of(row) for row in range(18)] == wanted
    assert first.spec.vocabulary == cached.spec.vocabulary
    stream = BlockStream([5, 3, 6, 4], 2, batch_size=6, seed=5, flip=True, choose=True)
    of_cache, chosen = cached._batches_of("train"), set()
    for batch, other, positions in zip(batches(first, 12), batches(second, 12), stream, strict=False):
        for name, values in of_cache[positions].items():
            assert torch.equal(batch[name], values), name
            assert torch.equal(other[name], values), name
        assert batch["text"][:, 0].tolist() == [int(wanted[row][0].split()[1]) for row in batch["index"]]
        chosen |= set(zip(batch["index"].tolist(), batch["text"][:, 1].tolist(), strict=True))
    assert len(chosen) > 18, "of several captions one is drawn at each place"
    assert opened(files, given=kind.captions).content == first.content != opened(files).content


def test_a_shard_gives_the_bits_that_an_archive_of_images_does(shards, opened, tmp_path):
    module = opened(shards / "2.tar", batch_size=6)
    images = DataModule(ImageFolder(str(shards / "2.tar"), 8), 6, cache_dir=str(tmp_path / "cache"))
    images.prepare_data()
    (batch,) = batches(module, 1)
    x = batch["x"].permute(0, 2, 3, 1).numpy()[batch["index"].argsort()]
    np.testing.assert_array_equal(x, images.train_set.samples)


@pytest.mark.parametrize("first", [1, 7])
def test_the_first_samples_alone(files, opened, first):
    module = opened(files, first=first)
    assert set(np.concatenate([batch["index"] for batch in batches(module, 9)]).tolist()) == set(range(first))


@pytest.mark.parametrize("step", [1, 3, 8])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_resumes_gets_what_an_undisturbed_one_does(files, opened, step, rank):
    def trainer(step):
        return SimpleNamespace(global_rank=rank, world_size=2, global_step=step)

    whole = batches(opened(files, accumulate=3), 30, trainer(0))
    rest = batches(opened(files, accumulate=3), 30 - 3 * step, trainer(step))
    for batch, expected in zip(rest, whole[3 * step :], strict=True):
        assert all((batch[name] == expected[name]).all() for name in expected)


@pytest.mark.parametrize("world_size", [2, 4])
def test_any_number_of_processes_gets_the_images_of_one(files, opened, world_size):
    ranks = [SimpleNamespace(global_rank=rank, world_size=world_size, global_step=1) for rank in range(world_size)]
    parts = [batches(opened(files, batch_size=4), 9, trainer) for trainer in ranks]
    whole = batches(opened(files, batch_size=4), 9, SimpleNamespace(global_rank=0, world_size=1, global_step=1))
    for nth, expected in enumerate(whole):
        for name, values in expected.items():
            assert torch.equal(torch.stack([part[nth][name] for part in parts], 1).flatten(0, 1), values), name
    rows = torch.cat([batch["index"] for batch in whole]).tolist()[14:32]  # the second epoch of 18
    assert sorted(rows) == list(range(18))


@pytest.mark.parametrize("window", [1, 3])
def test_a_window_of_blocks_is_in_memory_and_each_is_read_once_an_epoch(kind, files, opened, window, monkeypatch):
    class Block(list):
        """Rows that can be watched."""

        __hash__ = object.__hash__

    alive, most, read, read_block = weakref.WeakSet(), [], [], kind.source.read_block

    def watched(self, place, number, extents, whole):
        block = Block(read_block(self, place, number, extents, whole))
        alive.add(block)
        most.append(len(alive))
        read.append(place.name)
        return block

    monkeypatch.setattr(kind.source, "read_block", watched)
    batches(opened(files, window=window, batch_size=1), 3 * 18)
    assert max(most) == window
    # A block of an epoch's last pool that is in the next one's first is still there.
    assert 3 * 4 - 2 * window <= len(read) <= 3 * 4


@pytest.mark.parametrize(("world_size", "ahead"), [(1, True), (64, False)])
def test_a_process_reads_its_own_images_of_a_tar_alone(shards, opened, monkeypatch, world_size, ahead):
    read, advised, pread, advise = [], [], os.pread, os.posix_fadvise

    def reading(file, size, start):
        read.append((size, start))
        return pread(file, size, start)

    def advising(file, *what):
        advised.append(what)
        return advise(file, *what)

    monkeypatch.setattr(os, "pread", reading)
    monkeypatch.setattr(os, "posix_fadvise", advising)
    trainer = SimpleNamespace(global_rank=world_size - 1, world_size=world_size, global_step=0)
    module = opened(shards, batch_size=world_size)
    rows = [int(batch["index"]) for batch in batches(module, 5, trainer)]
    extents = module.train_set.images.reader.index.extents[rows]
    assert read == [(size, start) for start, size in extents.tolist()]
    assert bool(advised) == ahead, "few processes have the blocks read ahead"


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_tar_that_is_written_while_training(shards, opened, size):
    module = opened(shards / "0.tar")
    module.train_set.batch([0])
    (shards / "0.tar").write_bytes(bytes(size))
    message = rf"0\.tar: cannot be read \(it has {size:,} bytes by now, and had [\d,]+\); restore it, and start again"
    with pytest.raises(UserError, match=message):
        module.train_set.batch([1])


def test_a_tar_that_has_lost_images_but_no_bytes_is_named(shards, opened):
    """No image can be named that is not there any more."""
    module = opened(shards / "0.tar")
    size = (shards / "0.tar").stat().st_size
    (shards / "0.tar").write_bytes(bytes(size))
    with pytest.raises(UserError, match=r"image 1 of .*0\.tar"):
        module.train_set.batch([1])


def test_no_tar_stays_open(shards, opened):
    """A window may have more tars than a process may have open files."""
    module = opened(shards, window=4)
    batches(module, 18)
    files = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    assert not [file for file in files if file.endswith(".tar")]


def test_opening_an_index_costs_the_same_for_any_number_of_rows(tmp_path):
    def opened_in(number):
        ids = np.arange(number) % 7 + 3
        part = FileRows(np.full(10, number // 10), ids, np.zeros((number, 2), np.int64))
        folder = tmp_path / str(number)
        folder.mkdir()
        whole = BlockIndex.of(["a.tar"], [1], [part], "data.path=x")
        whole.write(folder)
        tracemalloc.start()
        index = BlockIndex.read(folder)
        digest, labels, classes = index.digest(), index.labels, index.classes
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (digest, classes) == (whole.digest(), tuple("3456789"))
        np.testing.assert_array_equal(labels, np.arange(number) % 7)
        return most

    assert opened_in(100_000) < opened_in(1_000) + 10_000, "bytes: of each row at least 8 where it is looked at"


def test_the_index_is_made_once_and_a_killed_one_resumes(shards, opened, tmp_path, monkeypatch, capsys):
    scanned, scan = [], TarShards.scan

    def counted(self, place):
        if len(scanned) == 2 and "stop" not in scanned:
            scanned.append("stop")
            raise KeyboardInterrupt
        scanned.append(place.name)
        return scan(self, place)

    monkeypatch.setattr(TarShards, "scan", counted)
    with pytest.raises(KeyboardInterrupt):
        opened(shards)
    first = opened(shards)
    assert scanned == ["0.tar", "1.tar", "stop", "2.tar", "3.tar"]
    assert "indexing 4 files of data.path=" in capsys.readouterr().out
    again = opened(shards)
    assert len(scanned) == 5
    assert again.content == first.content
    assert capsys.readouterr().out == ""
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(again.train_set)).labels, first.train_set.labels)
    # The content is of the listing and the decoding, wherever the shards lie.
    shards.rename(tmp_path / "moved")
    assert opened(tmp_path / "moved").content == first.content
    assert opened(tmp_path / "moved", image_size=9).content != first.content


def test_labels_that_change_without_a_size_have_the_index_made_again(shards, opened, blocks):
    """A tar's files take whole blocks of 512 bytes, so that other labels take as many: its time of change says it."""
    sizes = {path: path.stat().st_size for path in shards.iterdir()}
    first = opened(shards).train_set
    swapped = {0: 1, 1: 0}
    Tars.write(shards, [[row._replace(label=swapped.get(row.label, row.label)) for row in rows] for rows in blocks])
    assert {path: path.stat().st_size for path in sizes} == sizes
    again = opened(shards).train_set
    assert again.labels.tolist() == [swapped.get(label, label) for label in first.labels.tolist()]
    assert again.digest != first.digest


def test_held_out_images_are_cached(shards, opened):
    with pytest.raises(UserError, match="the test images have the classes 0, 1, 2 "):
        opened(shards, test_path=str(shards / "0.tar"))
    module = opened(shards / "0.tar", test_path=str(shards / "0.tar"))
    (batch,) = module.val_dataloader()
    assert batch["index"].tolist() == list(range(5))
    assert (module.test_set.samples == batch["x"].permute(0, 2, 3, 1).numpy()).all()


PIXELS = np.zeros((4, 4, 3), np.uint8)
GOOD = {"a.png": encoded(PIXELS, "PNG"), "a.cls": b"1"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b"x"}, r"data\.path=\S*bad: its 1 files hold no image"),
        (GOOD | {"b.png": GOOD["a.png"]}, r"0\.tar: cannot be indexed \(b\.png has no label, and others have"),
        (GOOD | {"a.cls": b"cat"}, r"0\.tar: cannot be indexed \(a\.cls holds no label"),
        (GOOD | {"a.cls": b"-1"}, r"a\.cls has the label -1; allowed: whole numbers from 0"),
        (GOOD | {"a.jpg": GOOD["a.png"]}, r"a\.png and a\.jpg have one key"),
        (GOOD | {"b_0.5_x.png": GOOD["a.png"]}, r"b_0\.5_x\.png has a dot in its key"),
        (GOOD | {"a.CLS": b"-2"}, r"a\.CLS has the label -2; allowed: whole numbers from 0"),
    ],
)
def test_shards_that_cannot_be_indexed(tmp_path, opened, files, message):
    write_tar(tmp_path / "bad" / "0.tar", files)
    with pytest.raises(UserError, match=message):
        opened(tmp_path / "bad")


def test_damaged_shards(tmp_path, opened, shards):
    damaged = shards / "1.tar"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:3000])
    with pytest.raises(UserError, match=r"1\.tar: cannot be indexed \(.*cut short or damaged; copy it again"):
        opened(shards)
    damaged.write_bytes(content)
    module = opened(shards, batch_size=18, window=4)
    place = content.index(b"007.png") + 512 + 30
    damaged.write_bytes(content[:place] + bytes(60) + content[place + 60 :])
    with pytest.raises(UserError, match=r"^007\.png in \S*1\.tar cannot be used: .*; replace or remove it$"):
        module.on_after_batch_transfer(batches(module, 1)[0], 0)
    anew = pickle.loads(pickle.dumps(module.train_set))
    damaged.write_bytes(content + bytes(1024))
    with pytest.raises(UserError, match=r"1\.tar: cannot be read \(it has [\d,]+ bytes, and had [\d,]+ when it was"):
        anew.batch([0, 6])


def test_what_lies_beside_is_said(kind, files, opened):
    for name in ("README.md", "4.tar.gz", "5.tgz"):
        (files / name).write_bytes(b"not read")
    assert summary(opened(files)).startswith("data: 18 images in 4 classes; left out: 1 .gz file, 1 .md file, 1 .tgz f")
    for again in (files, files.parent / "." / files.name / ".." / files.name):  # held out as well, and once each
        assert "; left out: 1 .gz file, 1 .md file, 1 .tgz f" in summary(opened(files, test_path=str(again)))
    for file in files.iterdir():
        if file.name.endswith(kind.source.suffix):
            file.unlink()
    with pytest.raises(UserError, match=rf"holds no \{kind.source.suffix} file; it holds 1 \.gz file, 1 \.md file, 1 "):
        opened(files)


def test_what_is_refused(tmp_path, shards, opened):
    with pytest.raises(OptionError, match="window is 0; allowed: at least 1"):
        opened(shards, window=0)
    with pytest.raises(OptionError, match="captions are written of a cache"):
        opened(shards, captions=object())
    with pytest.raises(UserError, match=r"loader=blocks: reads data that lies in blocks, and digits does not; allowed"):
        BlockDataModule(Digits(), 4).prepare_data()
    with pytest.raises(UserError, match="loader=blocks: keeps no decoded training set, which this needs"):
        _ = opened(shards).train_set.samples
    with pytest.raises(UserError, match=r"data\.path=null: give the folder of your \.tar files"):
        TarShards(None, 8).check()
    os.mkdir(tmp_path / "empty")
    with pytest.raises(UserError, match=r"empty: holds no \.tar file$"):
        TarShards(str(tmp_path / "empty"), 8).check()
    for options in ({"path": ""}, {"path": str(shards), "test_path": ""}):
        with pytest.raises(UserError, match=rf"^data\.{list(options)[-1]}=: has no value; give a path, or \. for"):
            TarShards(**options, image_size=8).check()
