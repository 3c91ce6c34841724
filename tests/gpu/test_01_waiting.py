"""A training step does not wait for the GPU: CUDA itself reports what does (`torch.cuda.set_sync_debug_mode`)."""

import sys
import traceback
import warnings
from collections import Counter
from pathlib import Path

import lightning
import pytest
import torch
from gpu_helpers import options
from training_helpers import QUIET, train

import langevin
from langevin.training.callbacks.progress import Progress
from langevin.training.module import DiffusionModule

LANGEVIN, LIGHTNING, TORCH = (Path(module.__file__).parent for module in (langevin, lightning, torch))
SEEN = (LANGEVIN, LIGHTNING, TORCH / "optim", TORCH / "nn")
FRAMES = 3
FIRST, LAST = 3, 6


def lines(stack):
    """The innermost lines of a stack in our code, Lightning's or torch's optimizers and modules."""
    found = []
    for frame in stack:
        path = Path(frame.filename)
        if any(root in path.parents for root in SEEN) and path.name not in ("_contextlib.py", "call.py"):
            root = next(root for root in (LANGEVIN, LIGHTNING, TORCH) if root in path.parents)
            found.append(f"{path.relative_to(root.parent)}:{frame.lineno}")
    return " > ".join(found[-FRAMES:])


class Waits:
    """The places that wait for the GPU, while mode "warn" is on."""

    def __init__(self, device):
        self.device, self.found, self.switched = device, Counter(), 0
        self.warnings = warnings.catch_warnings()

    def switch(self, mode):
        self.switched += 1
        if self.device == "cuda":
            torch.cuda.set_sync_debug_mode(mode)
        if mode == "warn":
            self.warnings.__enter__()
            warnings.simplefilter("always")
            warnings.showwarning = self.note
        elif mode == "default" and warnings.showwarning == self.note:
            self.warnings.__exit__(None, None, None)

    def note(self, message, *_):
        if "called a synchronizing CUDA operation" in str(message):
            self.found[lines(traceback.extract_stack(sys._getframe(1))) or "elsewhere"] += 1


def fit(monkeypatch, folder, device, mode, *extra):
    """Train with a mode on in the steps FIRST to LAST, which are not logged; give what waited."""
    waits = Waits(device)

    def start(self, batch, batch_idx):
        if self.global_step == FIRST - 1 and waits.switched == 0:
            waits.switch(mode)
        elif self.global_step == LAST and waits.switched == 1:
            waits.switch("default")

    def stop(self, trainer, pl_module, exception):
        waits.switch("default")  # what Lightning does after an error may wait

    every = LAST + 2
    arguments = (*QUIET, *options(device), f"trainer.max_steps={every}", f"trainer.log_every_n_steps={every}")
    with monkeypatch.context() as patch:
        patch.setattr(DiffusionModule, "on_train_batch_start", start)
        patch.setattr(Progress, "on_exception", stop)
        train(folder, *arguments, f"callbacks.progress.every_n_steps={every}", *extra, name=mode)
    assert waits.switched == 2
    return waits.found


@pytest.mark.parametrize("extra", [(), ("formulation=edm", "schedule=edm")], ids=["ddpm", "edm"])
def test_no_step_waits(tmp_path, monkeypatch, device, record_property, extra):
    waits = fit(monkeypatch, tmp_path, device, "warn", *extra)
    record_property("waits in a step", sum(waits.values()) / (LAST - FIRST + 1))
    record_property("places", [f"{count} x {place}" for place, count in waits.most_common()])
    assert not waits, "; ".join(waits)
    try:
        fit(monkeypatch, tmp_path, device, "error", *extra)
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        pytest.fail(f"waits: {lines(traceback.extract_tb(error.__traceback__))}", pytrace=False)


def test_a_wait_is_seen(device, record_property):
    """So the test above could fail."""
    waits = Waits(device)
    waits.switch("warn")
    try:
        if device == "cuda":
            float(torch.ones(2, device=device).sum())
        else:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
    finally:
        waits.switch("default")
    assert list(waits.found.values()) == [1]
    assert warnings.showwarning != waits.note


def test_places_are_lines_of_code():
    with pytest.raises(RuntimeError) as caught:
        torch.nn.Linear(2, 2)(torch.ones(3))
    assert lines(traceback.extract_tb(caught.value.__traceback__)).startswith("torch/nn/modules/")
