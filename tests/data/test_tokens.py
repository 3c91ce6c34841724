"""What an encoder computes of captions reaches batches as the encoder gives it, and is computed once."""

import itertools
import pickle
import zlib
from collections import namedtuple

import numpy as np
import pytest
import torch
from helpers.processes import Code

from langevin import interrupt
from langevin.data.captions import StoredTexts
from langevin.data.digits import Digits
from langevin.data.latents import MomentsEncoder
from langevin.data.module import DataModule, preprocess
from langevin.data.templates import Templates
from langevin.data.tokens import CaptionEncoder, encode_texts
from langevin.errors import UserError
from langevin.interrupt import Interrupted
from langevin.modalities.image import ImageModality

LENGTH = 7
TEXTS = StoredTexts.of([f"text {' and more' * (number % 9)} {number}" for number in range(200)])
MASKED = {
    "text": ((LENGTH, 3), np.dtype(np.float16)),
    "text_mask": ((LENGTH,), np.dtype(np.bool_)),
    "text_pooled": ((2,), np.dtype(np.float16)),
}
PADDED = {"text": MASKED["text"], "text_pooled": MASKED["text_pooled"]}
IDS = {"text": ((LENGTH,), np.dtype(np.int64))}


def code(word):
    return zlib.crc32(word.encode()) % 2048  # exact in float16


def rows(texts, columns):
    """Of each word its code: what stands where the mask is false must not matter, and with a hole at 1."""
    text = np.full((len(texts), *columns["text"][0]), 77, columns["text"][1])
    mask = np.zeros((len(texts), LENGTH), np.bool_)
    for index, words in enumerate(map(str.split, texts)):
        for place, word in enumerate(words[:LENGTH]):
            text[index, place] = code(word)
            mask[index, place] = place != 1
    if "text_mask" in columns:
        text[~mask] = 0
    pooled = np.array([[code(text), code(text[::-1])] for text in texts], np.float16)
    return {name: {"text": text, "text_mask": mask, "text_pooled": pooled}[name] for name in columns}


class Fake:
    """An encoder that notes what it computes."""

    def __init__(self, columns=MASKED, cached=True, function="a", stop=None):
        self.texts, self.columns, self.stop = [], columns, stop
        self.encoder = CaptionEncoder(function, columns, cached, self.encode)

    def encode(self, texts):
        if self.stop is not None and len(self.texts) >= 128:
            self.stop()
        self.texts += texts
        found = rows(texts, self.columns)
        if "text_mask" in self.columns:
            found["text"][~found["text_mask"]] = 5  # is not kept
        return found


def computed(folder, fake):
    return encode_texts(folder, "toy", TEXTS, fake.encoder)


@pytest.mark.parametrize(("columns", "cached"), [(MASKED, True), (PADDED, True), (PADDED, False), (IDS, False)])
def test_a_batch_has_the_rows_of_its_texts(tmp_path, columns, cached):
    encodings = computed(tmp_path, Fake(columns, cached))
    places = np.array([5, 0, 199, 5, 8], np.int64)
    expected = rows([TEXTS[place] for place in places], columns)
    for each in (encodings, pickle.loads(pickle.dumps(encodings))):
        batch = each.batch(places)
        assert batch.keys() == columns.keys()
        for name, values in batch.items():
            np.testing.assert_array_equal(values.numpy(), expected[name])
            assert values.numpy().dtype == columns[name][1]
        empty = each.batch(places[:0])
        assert {name: values.shape for name, values in empty.items()} == {
            name: (0, *shape) for name, (shape, _) in columns.items()
        }
    assert len(pickle.dumps(encodings)) < 1000 or not cached


def test_only_tokens_that_count_are_kept(tmp_path):
    encodings = computed(tmp_path, Fake())
    kept = sum(min(len(text.split()), LENGTH) - 1 for text in TEXTS)
    assert encodings.rows.shape == (kept + 1, 3)


def test_they_are_computed_once_for_each_encoder_and_texts(tmp_path, capsys):
    for fake, number in ((Fake(), 264), (Fake(), 0), (Fake(function="b"), 264), (Fake(PADDED), 200)):
        computed(tmp_path, fake)
        assert len(fake.texts) == number, "of a ragged one, 64 more say how much room is needed"
    assert "encoding 200 distinct captions once: about 0.0 MiB in" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["signal", "kill", "kill and a lost block"])
def test_stopped_and_rerun_it_resumes(tmp_path, monkeypatch, how):
    monkeypatch.setattr(interrupt, "_received", None)
    expected = computed(tmp_path / "whole", Fake(PADDED)).batch(np.arange(200))

    def stop():
        if how != "signal":
            raise KeyboardInterrupt  # no Exception, as a kill is none
        interrupt._received = "SIGTERM"

    with pytest.raises(Interrupted if how == "signal" else KeyboardInterrupt) as raised:
        computed(tmp_path / "cache", Fake(PADDED, stop=stop))
    if how == "signal":
        assert str(raised.value) == "by SIGTERM with 192 of 200 captions of toy encoded"
        interrupt._received = None
    (building,) = (tmp_path / "cache").glob("*.building")
    with open(building / "text.bin", "r+b") as file:
        if how == "kill and a lost block":  # as a crash of the machine may leave what was not flushed
            file.seek(64 * LENGTH * 3 * 2 + 10)
            file.write(bytes(50))
        else:  # or the begin of a chunk that was not noted
            file.seek(0, 2)
            file.write(b"begun")
    again = Fake(PADDED)
    encodings = computed(tmp_path / "cache", again)
    assert len(again.texts) == {"signal": 8, "kill": 72, "kill and a lost block": 136}[how]
    for name, values in encodings.batch(np.arange(200)).items():
        assert torch.equal(values, expected[name])
    assert not (encodings.folder / "chunks").exists()


def test_a_damaged_file_is_computed_again(tmp_path):
    encodings = computed(tmp_path, Fake())
    file = encodings.folder / "rows.bin"
    file.write_bytes(file.read_bytes()[:-1])
    fake = Fake()
    computed(tmp_path, fake)
    assert len(fake.texts) == 264


def test_too_little_room_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("usage", "free")(1000))
    fake = Fake(PADDED)
    with pytest.raises(UserError, match=r"^loader.cache_dir: the encodings of 200 captions take 0\.0 MiB in .* are fr"):
        computed(tmp_path, fake)
    assert not fake.texts


@pytest.mark.slow
def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path):
    code = f"""
        import resource
        from pathlib import Path
        from test_tokens import Fake, computed
        from langevin.errors import UserError
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            computed(Path({str(tmp_path)!r}), Fake())
        except UserError as error:
            print(error)
    """
    printed = Code(__file__, tmp_path, code).printed()
    assert f"loader.cache_dir={tmp_path}: the cache of encoded captions cannot be written" in printed
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.fixture
def opened(tmp_path):
    def make(flip=False, **options):
        module = DataModule(Digits(flip=flip), 32, cache_dir=str(tmp_path / "cache"), captions=Templates(), **options)
        module.prepare_data()
        return module

    return make


def texts_of(batch, module):
    """The captions of a batch, found by their pooled columns."""
    place = {tuple(rows([text], MASKED)["text_pooled"][0]): text for text in module.train_set.captions.texts}
    return [place[tuple(pooled)] for pooled in batch["text_pooled"].numpy()]


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_have_the_columns_of_a_caption_of_each_sample(opened, num_workers):
    plain, module = opened(seed=3), opened(seed=3, num_workers=num_workers)
    module.tokenize(Fake().encoder)
    chosen = []
    for image, batch in itertools.islice(zip(plain.train_dataloader(), module.train_dataloader(), strict=True), 94):
        assert image.keys() | MASKED.keys() == batch.keys()
        assert all(torch.equal(batch[name], values) for name, values in image.items()), "no other draw changes"
        texts = texts_of(batch, module)
        own = [module.train_set.captions.of(index) for index in batch["index"].tolist()]
        assert all(text in captions for text, captions in zip(texts, own, strict=True))
        chosen += [captions.index(text) for text, captions in zip(texts, own, strict=True)]
    assert np.abs(np.bincount(chosen, minlength=4) - 752).max() < 4 * np.sqrt(3008 * 3 / 16)
    for batch in module.val_dataloader():
        own = [module.test_set.captions.of(index)[0] for index in batch["index"].tolist()]
        assert texts_of(batch, module) == own
        assert {"x", *MASKED} < preprocess(batch, ImageModality()).keys()


def test_the_caption_of_a_place_does_not_depend_on_the_number_of_processes(opened):
    whole, half = opened(seed=1), opened(seed=1)
    trainer = namedtuple("Trainer", "global_rank world_size global_step")
    for module in (whole, half):
        module.tokenize(Fake().encoder)
    half.trainer = trainer(1, 2, 0)
    for one, other in itertools.islice(zip(whole.train_dataloader(), half.train_dataloader(), strict=True), 5):
        assert torch.equal(one["text_pooled"][1::2], other["text_pooled"])
    half.trainer = trainer(1, 2, 4)
    assert torch.equal(next(iter(half.train_dataloader()))["text_pooled"], other["text_pooled"])


def test_latents_go_together_with_captions(opened):
    plain, module = opened(flip=True, seed=3), opened(flip=True, seed=3)
    plain.tokenize(Fake().encoder)
    module.encode(MomentsEncoder((8, 8, 1), "a", lambda stored: stored.astype(np.float16)))
    module.tokenize(Fake().encoder)
    for image, batch in itertools.islice(zip(plain.train_dataloader(), module.train_dataloader(), strict=True), 50):
        assert all(torch.equal(batch[name], image[name]) for name in ("index", "label", *MASKED))
        assert batch.keys() == {"moments", "index", "label", *MASKED}
        mirrored = torch.where(image["flip"].reshape(-1, 1, 1, 1), image["x"].flip(-1), image["x"])
        assert torch.equal(batch["moments"], mirrored.half())
    # Other captions do not change the latents.
    assert module.train_set.digest != module.train_set.stored_digest


def test_samples_without_captions(tmp_path):
    module = DataModule(Digits(), 32, cache_dir=str(tmp_path))
    module.prepare_data()
    with pytest.raises(UserError, match="data: the train samples have no captions; take data=captioned"):
        module.tokenize(Fake().encoder)
