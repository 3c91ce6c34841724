"""A training step does not wait for the device: nothing in it asks for a tensor's value.

Where there is no GPU, what would wait on one is what reads a number out of a tensor.
"""

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from training_helpers import QUIET, train

from langevin.training.module import DiffusionModule

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal")


class Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.met, self.calls, self.watches = [], 0, False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        if func._opname in WAITS:
            self.met.append(func._opname)
        return func(*args, **(kwargs or {}))


def reading(watch, method):
    def read(self, *args, **kwargs):
        if watch.watches:
            watch.met.append(method.__name__)
        return method(self, *args, **kwargs)

    return read


@pytest.fixture
def watch(monkeypatch):
    """Watches steps 3 to 6, which are not logged."""
    watch = Watch()
    for name in ("tolist", "numpy", "cpu"):  # which read memory themselves
        monkeypatch.setattr(Tensor, name, reading(watch, getattr(Tensor, name)))

    def start(self, batch, batch_idx):
        if self.global_step == 2 and not watch.watches:
            watch.__enter__()
            watch.watches = True
        elif self.global_step == 6 and watch.watches:
            watch.__exit__(None, None, None)
            watch.watches = False

    monkeypatch.setattr(DiffusionModule, "on_train_batch_start", start)
    return watch


OPTIONS = (*QUIET, "trainer.max_steps=8", "trainer.log_every_n_steps=8", "callbacks.progress.every_n_steps=8")


@pytest.mark.parametrize(
    "options",
    [(), ("trainer.accumulate_grad_batches=2",), ("formulation=edm", "schedule=edm"), ("ema=images", "~ema.max_decay")],
    ids=["DDPM", "micro-batches", "EDM", "EMA by images"],
)
def test_no_step_asks_for_a_value(tmp_path, watch, options):
    train(tmp_path, *OPTIONS, *options)
    assert watch.calls > 500
    assert watch.met == []


def test_who_judges_each_step_does(tmp_path, watch):
    """So the test above could fail: `callbacks=divergence` says that it waits."""
    train(tmp_path, *OPTIONS, "callbacks=[checkpoint,progress,divergence]")
    assert len(watch.met) >= 4
