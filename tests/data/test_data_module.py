"""Batches as a trainer gets them. (Not test_module.py: pytest wants each test file's name once.)"""

import itertools
import resource

import lightning
import numpy as np
import pytest
import torch
from torch import nn

from langevin.data.digits import Digits
from langevin.data.image_folder import ImageFolder
from langevin.data.module import DataModule, preprocess
from langevin.data.stream import SampleStream
from langevin.errors import UserError
from langevin.modalities.image import ImageModality
from langevin.spec import DataSpec


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def digits(cache_dir):
    def make(batch_size=32, **options):
        module = DataModule(Digits(flip=options.pop("flip", False)), batch_size, cache_dir=cache_dir, **options)
        module.prepare_data()
        return module

    return make


class FakeTrainer:
    def __init__(self, global_rank=0, world_size=1, global_step=0):
        self.global_rank, self.world_size, self.global_step = global_rank, world_size, global_step


def test_the_spec_of_the_data_set(digits, write, pixels, cache_dir):
    module = digits()
    assert module.spec == DataSpec.of_images(1, 8, 10, module.content.sha256)
    assert (len(module.train_set), len(module.test_set)) == (1500, 297)
    unlabelled = DataModule(ImageFolder(write({"a.png": pixels(0)}), 10), 4, cache_dir=cache_dir)
    unlabelled.prepare_data()
    assert (unlabelled.num_classes, unlabelled.class_names, unlabelled.test_set) == (None, None, None)
    assert unlabelled.val_dataloader() == []
    batch = next(iter(unlabelled.train_dataloader()))
    assert batch["label"].tolist() == [-1] * 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_follow_the_stream(digits, num_workers):
    module = digits(flip=True, seed=5, num_workers=num_workers)
    stream = SampleStream(1500, 32, seed=5, flip=True)
    for batch, (indices, flips, _) in itertools.islice(zip(module.train_dataloader(), stream, strict=True), 60):
        np.testing.assert_array_equal(batch["x"].permute(0, 2, 3, 1).numpy(), module.train_set.samples[indices])
        np.testing.assert_array_equal(batch["label"].numpy(), module.train_set.labels[indices])
        np.testing.assert_array_equal(batch["flip"].numpy(), flips)
        np.testing.assert_array_equal(batch["index"].numpy(), indices)


@pytest.mark.parametrize(("first", "number"), [(3, 3), (2000, 1500)])
def test_the_first_samples_alone(digits, first, number):
    module = digits(first=first)
    batches = itertools.islice(module.train_dataloader(), 60)
    assert module.number == number
    assert set(torch.cat([batch["index"] for batch in batches]).tolist()) == set(range(number))


def test_shapes_types_and_strides(write, pixels, cache_dir):
    module = DataModule(ImageFolder(write({"x.png": pixels(3)}), 10), 6, cache_dir=cache_dir)
    module.prepare_data()
    batch = next(iter(module.train_dataloader()))
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        "x": ((6, 3, 10, 10), torch.uint8),
        "label": ((6,), torch.int64),
        "index": ((6,), torch.int64),
        "flip": ((6,), torch.bool),
    }
    assert batch["x"].is_contiguous(memory_format=torch.channels_last)
    assert preprocess(batch, ImageModality())["x"].is_contiguous(memory_format=torch.channels_last)


def test_preprocess_scales_and_mirrors():
    image = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4) * 2
    labels = torch.tensor([1, 2])
    batch = preprocess(
        {"x": image, "label": labels, "other": labels + 1, "flip": torch.tensor([False, True])}, ImageModality()
    )
    x = batch.pop("x")
    np.testing.assert_allclose(x[0].numpy(), image[0].numpy() / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(x[1].numpy(), image[1].numpy()[..., ::-1] / 127.5 - 1, atol=1e-6)
    assert x.dtype == torch.float32
    assert {name: values.tolist() for name, values in batch.items()} == {"label": [1, 2], "other": [2, 3]}


@pytest.mark.parametrize("num_images", [1, 2, 5, 33, 297])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_validation_has_each_test_image_once(digits, monkeypatch, world_size, num_images):
    """And as many batches in every process, the same ones but for the images that the others have of them."""
    module = digits()
    labels = module.test_set.labels[:num_images]
    monkeypatch.setattr(module.test_set, "samples", module.test_set.samples[:num_images])
    monkeypatch.setattr(module.test_set, "labels", labels)
    whole = [labels[start : start + 32].tolist() for start in range(0, num_images, 32)]
    for rank in range(world_size):
        module.trainer = FakeTrainer(rank, world_size)
        loader = module.val_dataloader()
        assert len(loader) == len(whole)
        batches = [preprocess(batch, ImageModality()) for batch in loader]
        assert [batch["label"].tolist() for batch in batches] == [batch[rank::world_size] for batch in whole]
        assert all(batch["x"].shape == (len(batch["label"]), 1, 8, 8) for batch in batches)


def test_workers_load_empty_batches(digits, monkeypatch):
    module = digits(num_workers=1)
    module.trainer = FakeTrainer(3, 4)
    monkeypatch.setattr(module, "test_set", module.train_set)
    monkeypatch.setattr(type(module.train_set), "__len__", lambda self: 35)
    assert [len(preprocess(batch, ImageModality())["label"]) for batch in module.val_dataloader()] == [8, 0]


@pytest.mark.parametrize(("batch_size", "world_size", "accumulate"), [(10, 4, 1), (10, 1, 3), (12, 4, 2)])
def test_a_batch_that_cannot_be_shared_out(digits, batch_size, world_size, accumulate):
    module = digits(batch_size=batch_size, accumulate=accumulate)
    module.trainer = FakeTrainer(0, world_size)
    with pytest.raises(
        UserError, match=f"batch_size={batch_size}: must be divisible by .* = {world_size * accumulate}"
    ):
        module.train_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; allowed: at least 1"),
        ({"accumulate": 0}, "accumulate is 0; allowed: at least 1"),
        ({"seed": -1}, "seed is -1; allowed: at least 0"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        DataModule(Digits(), **({"batch_size": 8} | options))


def test_prepare_data_checks_before_it_builds(tmp_path):
    module = DataModule(ImageFolder(str(tmp_path / "no"), 8), 4, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"data\.path"):
        module.prepare_data()
    assert not (tmp_path / "cache").exists()


class Recorder(lightning.LightningModule):
    """Trains one number and notes which images it saw in which optimizer step."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        x = batch["x"]
        self.seen.append((self.global_step, x.sum(dim=(1, 2, 3)).tolist()))
        return self.weight * x.mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def train(module, steps, accumulate=1, checkpoint=None, **options):
    recorder = Recorder()
    trainer = lightning.Trainer(
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        use_distributed_sampler=False,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=10_000,
        **options,
    )
    trainer.fit(recorder, module, ckpt_path=checkpoint)
    return recorder.seen, trainer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_training_sees_what_the_undisturbed_one_saw(digits, tmp_path, accumulate):
    whole, _ = train(digits(accumulate=accumulate), 60, accumulate)
    first, trainer = train(digits(accumulate=accumulate), 25, accumulate)
    trainer.save_checkpoint(tmp_path / "at25.ckpt")
    second, _ = train(digits(accumulate=accumulate), 60, accumulate, tmp_path / "at25.ckpt")
    assert len(whole) == 60 * accumulate
    assert first + second == whole


@pytest.mark.filterwarnings("ignore")
def test_short_lightning_epochs_go_on_with_the_stream(digits):
    whole, _ = train(digits(), 12)
    short, _ = train(digits(), 12, limit_train_batches=5)
    assert short == whole


def test_memory_does_not_grow_with_epochs(digits):
    loader = iter(digits(batch_size=300).train_dataloader())

    def peak_after(epochs):
        for _ in range(epochs * 5):
            next(loader)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB

    warm = peak_after(20)
    assert peak_after(500) - warm < 4 * 1024  # keeping the batches, 20 kB each, would take 50 MB
