"""What `model=unet` needs of the GPU's memory at its usual batch size, and that it does not grow."""

import pytest
import torch
from gpu_helpers import options
from helpers.images import example_images
from PIL import Image
from training_helpers import train

from langevin.training.module import DiffusionModule

STEPS = 12
TINY_MODEL = ("model.channels=32", "model.channel_multipliers=[1,1]", "batch_size=8")
UNET = ("model.channels=128", "model.channel_multipliers=[1,2,2,2]", "batch_size=128")


@pytest.fixture
def folder(tmp_path):
    """Images of 32 pixels in two classes."""
    folder = tmp_path / "images"
    for index, image in enumerate(example_images(32)):
        path = folder / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return folder


def test_memory_does_not_grow(tmp_path, folder, monkeypatch, device, rehearsal, record_property):
    allocated = {}

    def start(self, batch, batch_idx):
        if device == "cuda":
            torch.cuda.synchronize()
            allocated[self.global_step] = torch.cuda.memory_allocated()
        else:
            allocated[self.global_step] = 0

    monkeypatch.setattr(DiffusionModule, "on_train_batch_start", start)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    extra = (
        "data=image_folder",
        f"data.path={folder}",
        "data.image_size=32",
        "model=unet",
        *(TINY_MODEL if rehearsal else UNET),
        *options(device),
        f"trainer.max_steps={STEPS + 1}",
        "trainer.log_every_n_steps=3",
        "callbacks=[progress]",
        "callbacks.progress.every_n_steps=3",
    )
    train(tmp_path, *extra)
    assert len(allocated) == STEPS + 1
    growth = allocated[STEPS] - allocated[STEPS // 2]
    record_property("growth from step 6 to 12, MB", growth / 1e6)
    record_property("between steps, GB", allocated[STEPS] / 1e9)
    assert abs(growth) < 1e6
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
        record_property("peak, GB", peak)
        record_property("peak reserved, GB", torch.cuda.max_memory_reserved() / 1e9)
        assert 1 < peak < 40
