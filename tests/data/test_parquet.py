"""Parquet files: those that datasets itself has written, and those that are not as they should be.

``of_datasets`` holds 40 and 12 of scikit-learn's digits, which datasets 5.2.0 has written: ``Dataset.from_dict`` with
the features Image, ClassLabel and Value("string"), then ``to_parquet``.
"""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.block_files import schema_of, write_parquet
from helpers.digits import digits
from PIL import Image

from langevin.data import parquet
from langevin.data.block_module import BlockDataModule
from langevin.data.module import DataModule
from langevin.data.parquet import Parquet
from langevin.data.summary import summary
from langevin.errors import UserError

pa = pytest.importorskip("pyarrow")

OF_DATASETS = Path(__file__).parent / "of_datasets"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def png(level=0, side=4):
    file = io.BytesIO()
    Image.new("L", (side, side), level).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def prepared(tmp_path):
    def prepare(path, kind=DataModule, **options):
        source = Parquet(str(path), options.pop("image_size", 4), channels=1, flip=False, **options)
        module = kind(source, 4, num_workers=0, cache_dir=str(tmp_path / "cache"))
        module.prepare_data()
        return module

    return prepare


@pytest.mark.parametrize("kind", [DataModule, BlockDataModule])
def test_files_of_datasets(prepared, kind):
    module = prepared(OF_DATASETS, kind, image_size=8, caption="text")
    images, labels = digits()
    assert module.class_names == WORDS
    assert summary(module) == "data: 40 images and 12 test images in 10 classes, 40 captions (10 of them distinct)"
    for samples, rows in ((module.train_set, slice(40)), (module.test_set, slice(40, 52))):
        batch = samples.batch(np.arange(len(samples)))
        np.testing.assert_array_equal(batch["x"].permute(0, 2, 3, 1), images[rows])
        assert samples.labels.tolist() == labels[rows].tolist()
        assert [samples.captions.of(row) for row in range(3)] == [[f"a {WORDS[each]}"] for each in labels[rows][:3]]


def group(number=2, **columns):
    """Rows with images of levels from 0 up, and more columns."""
    return {"image": [png(level) for level in range(number)], **columns}


IMAGE, CLASS = {"_type": "Image"}, {"_type": "ClassLabel", "names": ["cat", "dog", "eel"]}


@pytest.mark.parametrize(
    ("types", "features", "given", "found"),
    [
        ({"jpg": pa.large_binary(), "n": pa.int64()}, None, {}, ("jpg", None, None)),
        ({"jpg": STRUCT, "label": pa.uint8()}, None, {}, ("jpg", "label", None)),
        ({"a": STRUCT, "image": STRUCT}, {"a": IMAGE, "image": IMAGE}, {}, ("image", None, None)),
        ({"mask": pa.binary(), "img": STRUCT}, {"img": IMAGE}, {}, ("img", None, None)),
        ({"a": STRUCT, "kind": pa.int8()}, {"kind": CLASS}, {"caption": None}, ("a", "kind", None)),
        ({"a": STRUCT, "label": pa.int8()}, None, {"label": None}, ("a", None, None)),
        ({"a": STRUCT, "b": STRUCT, "t": pa.string()}, None, {"image": "b", "caption": "t"}, ("b", None, "t")),
    ],
)
def test_columns_are_found(types, features, given, found, tmp_path):
    write_parquet(tmp_path / "0.parquet", [], schema_of(features, **types))
    source = Parquet(str(tmp_path), 4, **given)
    source.check()
    assert tuple(source._names) == found


@pytest.mark.parametrize(
    ("types", "features", "given", "message"),
    [
        ({"a": pa.int8()}, None, {}, r"data\.image=auto: \S*0\.parquet has no column of images, a struct .*; its col"),
        (
            {"a": STRUCT, "b": STRUCT},
            None,
            {},
            r"data\.image=auto: \S*0\.parquet has a and b; choose one, data\.image=",
        ),
        ({"a": STRUCT}, None, {"image": "b"}, r"data\.image=b: \S* has no such column; its columns are a \(struct<byt"),
        (
            {"a": pa.string()},
            None,
            {"image": "a"},
            r"data\.image=a: \S* has string there; allowed: a struct {bytes, pa",
        ),
        ({"a": pa.list_(STRUCT)}, None, {"image": "a"}, r"data\.image=a: \S* has list<.*> there; allowed: a struct"),
        ({"a": STRUCT, "label": pa.string()}, None, {}, r"data\.label=label: \S* has string there; allowed: whole num"),
        ({"a": STRUCT}, None, {"label": "b"}, r"data\.label=b: \S* has no such column; its columns are a"),
        ({"a": STRUCT}, None, {"caption": "text"}, r"data\.caption=text: \S* has no such column; its columns are a"),
        ({"a": STRUCT}, None, {"caption": "a"}, r"data\.caption=a: \S* has struct<.*> there; allowed: a text, or a "),
        (
            {"a": STRUCT, "fine": pa.int8(), "coarse": pa.int8()},
            {"fine": CLASS, "coarse": CLASS},
            {},
            r"data\.label=auto: \S*0\.parquet has fine and coarse; choose one, data\.label=COLUMN",
        ),
    ],
)
def test_columns_that_are_not_there_or_of_another_type(types, features, given, message, tmp_path):
    write_parquet(tmp_path / "0.parquet", [], schema_of(features, **types))
    with pytest.raises(UserError, match=message):
        Parquet(str(tmp_path), 4, **given).check()


SCHEMA = {"image": pa.binary(), "label": pa.int64(), "text": pa.string()}
ROWS = group(label=[0, 1], text=["a", "b"])


@pytest.mark.parametrize(
    ("rows", "features", "message"),
    [
        ({"label": [0, -1]}, None, r"0\.parquet: cannot be indexed \(row 3 has the label -1; allowed: whole numbers f"),
        (
            {"label": [0, -1]},
            {"label": CLASS},
            r"-1; allowed: .* 2, or data\.label=null .*, or data\.test_path=null where ",
        ),
        ({"label": [0, None]}, None, r"row 3 has no label; allowed: .* 0 to \d+, or data\.label=null .*test_path=null"),
        ({"label": [0, 3]}, {"label": CLASS}, r"row 3 has the label 3; allowed: whole numbers from 0 to 2, or data"),
        ({}, {"label": CLASS | {"names": [1]}}, r"its metadata have no names of the classes of label, but \[1\]"),
        ({"text": ["a", None]}, None, r"row 3 of \S*0\.parquet has no caption; give it one, or remove it"),
        ({"text": ["a", " "]}, None, r"row 3 of \S*0\.parquet has an empty caption; write one, or remove it"),
        ({"text": ["a", "b" * 2**21]}, None, r"row 3 has an empty or too long caption; allowed: a text of at most"),
        ({"image": [png(), b"GIF89a"]}, None, r"row 3 of \S*0\.parquet cannot be used: .*; replace or remove it$"),
        ({"image": [png(), None]}, None, r"row 3 of \S*0\.parquet cannot be used: it is empty; replace or remove it$"),
    ],
)
def test_rows_that_cannot_be_used(rows, features, message, tmp_path, prepared):
    write_parquet(tmp_path / "0.parquet", [ROWS, ROWS | rows], schema_of(features, **SCHEMA))
    with pytest.raises(UserError, match=message):
        prepared(tmp_path / "0.parquet", caption="text")


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["0.parquet", "a/1.PARQUET", "test.txt"], (["0.parquet", "a/1.PARQUET"], None, {".txt file": 1})),
        (
            ["default/test/0.parquet", "default/train/0.parquet", "default/train/1.parquet"],
            (["default/train/0.parquet", "default/train/1.parquet"], ["default/test/0.parquet"], {}),
        ),
        (
            ["other.parquet", "test-0.parquet", "training_0.parquet", "val-0.parquet"],
            (["training_0.parquet"], ["val-0.parquet"], {"test file": 1, "other file": 1}),
        ),
        (
            ["mnist-test.parquet", "my_train.parquet", "partial-test/0.parquet", "test_set/2Train.parquet"],
            (["my_train.parquet", "test_set/2Train.parquet"], ["mnist-test.parquet", "partial-test/0.parquet"], {}),
        ),
    ],
)
def test_splits_go_by_the_names_of_files(names, splits, tmp_path):
    for name in names:
        if name.endswith(".txt"):
            (tmp_path / name).touch()
        else:
            write_parquet(tmp_path / name, [group()], schema_of(image=pa.binary()))
    source = Parquet(str(tmp_path), 4)
    source.check()
    train, test, left_out = splits
    assert source._listed("train")[1] == train
    assert (source._listed("test")[1] if "test" in source.splits() else None) == test
    assert source.left_out() == left_out
    assert Parquet(str(tmp_path), 4, test_path=None).splits() == ("train",)
    beside = Parquet(str(tmp_path), 4, test_path=str(tmp_path / names[0]))
    assert beside._listed("test")[1] == [names[0].rpartition("/")[2]]


def test_files_that_do_not_go_together(tmp_path, prepared):
    for name, found in (("my_test", "test"), ("validation-0", "test and validation")):
        write_parquet(tmp_path / f"{name}.parquet", [group()], schema_of(image=pa.binary()))
        with pytest.raises(UserError, match=rf"holds files of {found}, and none of train; give one of the files, or r"):
            prepared(tmp_path)
    assert len(prepared(tmp_path / "my_test.parquet").train_set) == 2
    for name, names in (("train-0", ["cat", "dog"]), ("train-1", ["dog", "cat"])):
        schema = schema_of({"label": CLASS | {"names": names}}, image=pa.binary(), label=pa.int8())
        write_parquet(tmp_path / f"{name}.parquet", [group(label=[0, 1])], schema)
    with pytest.raises(UserError, match=r"train-0\.parquet and train-1\.parquet name their classes differently"):
        prepared(tmp_path, test_path=None)
    write_parquet(tmp_path / "train-1.parquet", [group()], schema_of(image=pa.binary()))
    with pytest.raises(UserError, match=r"data\.label=label: \S*train-1\.parquet has no such column; its columns are "):
        prepared(tmp_path, test_path=None)


def test_classes_that_the_test_images_lack(tmp_path, prepared):
    for name, labels in (("train", [0, 1]), ("test", [1, 1])):
        rows = group(label=labels)
        write_parquet(tmp_path / f"{name}.parquet", [rows], schema_of(image=pa.binary(), label=pa.int8()))
    with pytest.raises(UserError, match=r"the test images have the classes 1 .*, or data\.test_path=null for no test"):
        prepared(tmp_path)
    assert prepared(tmp_path, test_path=None).class_names == ("0", "1")


def test_metadata_of_classes_that_are_not_as_datasets_writes_them_are_named_with_their_file(tmp_path):
    """Also where the fingerprint of the test images is the first to need them."""
    for name in ("train", "test"):
        schema = schema_of({"label": CLASS | {"names": [1]}}, image=pa.binary(), label=pa.int8())
        write_parquet(tmp_path / f"{name}.parquet", [group(label=[0, 1])], schema)
    with pytest.raises(UserError, match=r"train\.parquet: cannot be opened \(its metadata have no names"):
        Parquet(str(tmp_path), 4).fingerprint("test")


def test_the_names_of_classes_are_part_of_what_test_images_are_where_these_are_labelled_by_names(tmp_path):
    """So that caches and indexes of numbered ones are not made again."""

    def fingerprints(label, *names):
        schema = schema_of({"label": CLASS | {"names": names}}, image=pa.binary(), label=pa.int8())
        write_parquet(tmp_path / "train.parquet", [group(label=[0, 1])], schema)
        write_parquet(tmp_path / "test-0.parquet", [group(label=[0, 1])], schema)
        of_label = {} if label is None else {"label": label.type}
        rows = group() if label is None else group(label=label)
        write_parquet(tmp_path / "test-1.parquet", [rows], schema_of(image=pa.binary(), **of_label))
        for place in tmp_path.iterdir():
            os.utime(place, (1, 1))
        return [Parquet(str(tmp_path), 4).fingerprint(split) for split in ("train", "test")]

    texts, numbers = pa.array(["cat", "dog"]), pa.array([0, 1])
    for label, same in ((texts, False), (texts.dictionary_encode(), False), (numbers, True), (None, True)):
        before, after = fingerprints(label, "cat", "dog"), fingerprints(label, "dog", "cat")
        assert before[0] == after[0]
        assert (before[1] == after[1]) is same, label


@pytest.mark.parametrize("kind", [BlockDataModule, DataModule])
def test_the_test_images_may_name_their_classes_as_the_training_images_do(kind, tmp_path, prepared):
    texts = pa.dictionary(pa.int8(), pa.string())

    def with_names(*names):
        schema = schema_of({"label": CLASS | {"names": names}}, image=pa.binary(), label=pa.int8())
        write_parquet(tmp_path / "train.parquet", [group(label=[0, 2])], schema)

    def held_out(*labels):
        rows = group(len(labels), label=pa.array(labels).cast(texts))
        write_parquet(tmp_path / "test.parquet", [rows], schema_of(image=pa.binary(), label=texts))
        return prepared(tmp_path, kind)

    with_names("cat", "dog", "eel")
    module = held_out("eel", "dog", "eel")
    assert module.class_names == ("cat", "dog", "eel")
    assert module.test_set.labels.tolist() == [2, 1, 2]
    with_names("dog", "cat", "eel")
    assert prepared(tmp_path, kind).test_set.labels.tolist() == [2, 0, 2], "by the names that the classes have now"
    with pytest.raises(UserError, match=r"test\.parquet: .*row 1 has the label bird; allowed: dog, cat, eel, or data"):
        held_out("eel", "bird")
    with pytest.raises(UserError, match=r"row 0 has no label; allowed: dog, cat, eel, or data\.label=null .*test_path"):
        held_out(None, None)


def test_classes_of_one_name(tmp_path, prepared):
    """Numbers tell them apart, and names do not."""
    schema = schema_of({"label": CLASS | {"names": ["cat", "dog", "cat"]}}, image=pa.binary(), label=pa.int8())
    write_parquet(tmp_path / "train.parquet", [group(3, label=[2, 0, 1])], schema)
    module = prepared(tmp_path)
    assert module.train_set.labels.tolist() == [2, 0, 1]
    assert module.class_names == ("cat", "dog", "cat")
    named = schema_of(image=pa.binary(), label=pa.string())
    write_parquet(tmp_path / "test.parquet", [group(label=["dog"] * 2)], named)
    with pytest.raises(UserError, match=r"test\.parquet: .*names of classes, of which 2 are called cat in .*; allowed"):
        prepared(tmp_path)


@pytest.mark.parametrize("kind", [BlockDataModule, DataModule])
def test_columns_that_are_stored_by_a_dictionary_or_have_one_name(kind, tmp_path, prepared):
    columns = {
        "image": pa.array([png(0), png(200), png(0)]).dictionary_encode(),
        "label": pa.array([5, 3, 5]).dictionary_encode(),
        "text": pa.array(["a", "b", "a"]).dictionary_encode(),
    }
    table = pa.table([*columns.values(), [1] * 3, [2] * 3], names=[*columns, "other", "other"])
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "0.parquet")
    samples = prepared(tmp_path, kind, caption="text").train_set
    assert samples.labels.tolist() == [1, 0, 1]
    assert samples.batch([0, 1, 2])["x"][:, 0, 0, 0].tolist() == [0, 200, 0]
    assert [samples.captions.of(row) for row in range(3)] == [["a"], ["b"], ["a"]]


def test_views_of_texts_and_bytes(tmp_path, prepared):
    table = pa.table({"image": pa.array([png(7)], pa.binary_view()), "text": pa.array(["a view"], pa.string_view())})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "0.parquet")
    samples = prepared(tmp_path, caption="text").train_set
    assert samples.batch([0])["x"].unique().tolist() == [7]
    assert samples.captions.of(0) == ["a view"]


def test_images_that_are_paths_alone(tmp_path, prepared):
    rows = {"image": [{"bytes": None, "path": "1.png"}] * 2}
    write_parquet(tmp_path / "0.parquet", [rows], schema_of(image=STRUCT))
    with pytest.raises(UserError, match=r"row group 0 has no bytes of images in image, but paths at most; write the b"):
        prepared(tmp_path)


def test_what_pyarrow_has_not_is_no_damage(tmp_path, prepared, monkeypatch):
    def fail(*args, **options):
        raise pa.ArrowNotImplementedError("Support for codec 'lzo' not built")

    monkeypatch.setattr(pytest.importorskip("pyarrow.parquet").ParquetFile, "iter_batches", fail)
    with pytest.raises(UserError, match=r"\(pyarrow cannot read it: Support for codec 'lzo' not built\)"):
        prepared(OF_DATASETS)


def test_damaged_files(tmp_path, prepared):
    content = (OF_DATASETS / "train-00000-of-00001.parquet").read_bytes()
    place = tmp_path / "0.parquet"
    for damaged in (b"", content[:5000], b"no Parquet file at all"):
        place.write_bytes(damaged)
        with pytest.raises(UserError, match=r"0\.parquet: cannot be opened \(.*cut short or damaged; copy it again\)$"):
            prepared(place)
    place.write_bytes(content[:300] + bytes(300) + content[600:])
    with pytest.raises(
        UserError,
        match=r"^38 of 40 images cannot be used; .*\n  row 2 of \S*0\.parquet cannot be used: it is damaged, ",
    ):
        prepared(place)


def test_a_few_bytes_that_decompress_to_many(tmp_path, prepared, monkeypatch):
    place = tmp_path / "0.parquet"
    write_parquet(place, [{"image": [png() + bytes(20_000)] * 1000}], schema_of(image=pa.binary()))
    assert place.stat().st_size < 50_000
    message = r"row group 0 decompresses to more than 16,777,216 bytes of image, too many for its size"
    with pytest.raises(UserError, match=message):
        prepared(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(parquet, "LARGE", 2**30)
        patched.setattr(parquet, "MAX_BYTES", 20_000)
        with pytest.raises(UserError, match=r"image 0 of row group 0 has 20,\d+ bytes; allowed: at most 20,000"):
            prepared(tmp_path)
    write_parquet(place, [{"image": [bytes(20_000_000)]}], schema_of(image=pa.binary()))
    content = place.read_bytes()
    place.write_bytes(content[:500] + bytes(500) + content[1000:])  # which is not found out before it is read
    monkeypatch.setattr(parquet, "MAX_RATIO", 10)
    with pytest.raises(UserError, match=message):
        prepared(tmp_path)


@pytest.mark.parametrize("store_schema", [True, False])
def test_a_caption_that_all_rows_share(store_schema, tmp_path):
    number, place = 100_000, tmp_path / "0.parquet"  # 100 GB, were they all read
    text = pa.DictionaryArray.from_arrays(np.zeros(number, np.int32), ["b" * 2**20])
    table = pa.table({"image": pa.nulls(number, pa.binary()), "text": text})
    pytest.importorskip("pyarrow.parquet").write_table(table, place, store_schema=store_schema)
    assert place.stat().st_size < 100_000
    source = Parquet(str(place), 4, caption="text")
    source.check()
    with pytest.raises(UserError, match=r"row group 0 decompresses to more than 16,777,216 bytes of text, too many f"):
        source.load("train")
    assert pa.default_memory_pool().max_memory() < 2**27


def test_a_row_group_that_is_too_large_to_be_held(tmp_path, prepared, monkeypatch):
    write_parquet(tmp_path / "0.parquet", [group(), group(20)], schema_of(image=pa.binary()))
    monkeypatch.setattr(parquet, "_MAX_GROUP", 600)
    message = r"0\.parquet: .*row group 1 has 1,\d+ bytes of images, and is held whole; allowed: at most 600; .*=1000"
    with pytest.raises(UserError, match=message):
        prepared(tmp_path)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(parquet, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^data=parquet needs the package pyarrow: .*\[parquet\]'$"):
        Parquet(None, 4).check()
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"data\.path=null: give the folder of your \.parquet files"):
        Parquet(None, 4).check()
