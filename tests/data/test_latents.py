"""MomentsTransform of a whole data set: those of every sample and of its mirror image, computed once."""

import itertools
import shutil
import threading
import time
from collections import namedtuple

import numpy as np
import pytest
import torch

from langevin.data.digits import Digits
from langevin.data.latents import MomentsEncoder
from langevin.data.module import DataModule, preprocess
from langevin.errors import UserError
from langevin.interrupt import Interrupted
from langevin.modalities.image import ImageModality


def halves(stored):
    """MomentsTransform (B, 4, 4, 2): of each 2x2 pixels the first and the last, which a mirror image has elsewhere."""
    return np.concatenate([stored[:, ::2, ::2], stored[:, 1::2, 1::2]], axis=-1).astype(np.float16) / 16


@pytest.fixture
def opened(tmp_path):
    def make(flip=True, **options):
        module = DataModule(Digits(flip=flip), 32, cache_dir=str(tmp_path / "cache"), **options)
        module.prepare_data()
        return module

    return make


def encoder(encode=halves, function="a"):
    return MomentsEncoder((4, 4, 2), function, encode)


def test_batches_hold_the_moments_of_the_images_that_they_would_hold(opened):
    plain, encoded = opened(seed=3), opened(seed=3)
    moments = encoded.encode(encoder())
    assert moments.samples.shape == (3000, 4, 4, 2)
    assert encoded.moments["test"].samples.shape == (297, 4, 4, 2)
    for images, latents in itertools.islice(zip(plain.train_dataloader(), encoded.train_dataloader(), strict=True), 50):
        mirrored = torch.where(images["flip"].reshape(-1, 1, 1, 1), images["x"].flip(-1), images["x"])
        expected = halves(mirrored.movedim(1, -1).numpy())
        np.testing.assert_array_equal(latents["moments"].movedim(1, -1).numpy(), expected)
        assert latents.keys() == {"moments", "label", "index"}
        assert all(torch.equal(latents[name], images[name]) for name in ("label", "index"))
    assert preprocess(latents, ImageModality())["moments"].dtype == torch.float32
    (images, latents), *_ = zip(plain.val_dataloader(), encoded.val_dataloader(), strict=True)
    np.testing.assert_array_equal(latents["moments"].movedim(1, -1), halves(images["x"].movedim(1, -1).numpy()))


def test_they_are_computed_once_for_each_encoder_and_data(opened):
    calls = []

    def counted(stored):
        calls.append(len(stored))
        return halves(stored)

    opened().encode(encoder(counted))
    assert sum(calls) == 3000 + 297
    opened().encode(encoder(counted))
    assert sum(calls) == 3000 + 297
    opened().encode(encoder(counted, function="b"))
    assert sum(calls) == 2 * (3000 + 297)
    opened(flip=False).encode(encoder(counted))
    assert sum(calls) == 2 * (3000 + 297) + 1500


def test_stopped_and_rerun_it_resumes(opened, monkeypatch, capsys):
    calls, received = [], threading.Event()
    signals = itertools.chain([None, None], itertools.repeat("SIGTERM"))

    def read_signal():
        signal = next(signals)
        if signal is not None:
            received.set()
        return signal

    def stopped(stored):
        calls.append(len(stored))
        if len(calls) >= 5:  # the encoder runs ahead of what reads signals
            assert received.wait(60)
            time.sleep(0.1)
        return halves(stored)

    module = opened()
    monkeypatch.setattr("langevin.data.cache.received", read_signal)
    with pytest.raises(Interrupted, match=r"of 3,000 images of digits-train-latents encoded"):
        module.encode(encoder(stopped))
    done, calls[:] = sum(calls), []
    assert 192 <= done < 3000
    monkeypatch.undo()
    opened().encode(encoder(lambda stored: calls.append(len(stored)) or halves(stored)))
    assert done + sum(calls) == 3000 + 297
    assert "encoding 3,000 images once (both mirror images): 0.2 MiB in" in capsys.readouterr().out


def test_what_is_encoded_already_counts_as_room(opened, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    opened().encode(encoder())
    finished = next(path for path in (tmp_path / "cache").glob("*train-latents-*") if path.is_dir())
    finished.rename(finished.with_suffix(".building"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100_000))
    module = opened()
    module.encode(encoder())
    assert module.moments["train"].samples.shape == (3000, 4, 4, 2)


def test_too_little_room_is_said_before_anything_is_computed(opened, monkeypatch):
    module, usage = opened(), namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100_000))
    with pytest.raises(UserError, match=r"loader.cache_dir: the latents of 3,000 images take 0\.2 MiB in .* 0\.1 MiB"):
        module.encode(encoder(lambda stored: pytest.fail("was computed")))
    assert not module.moments


def test_what_an_encoder_raises_is_not_taken_for_broken_images(opened):
    def fail(stored):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        opened().encode(encoder(fail))
