"""What is logged in validation is the mean over all held-out images, by any number of processes."""

import copy
import json

import pytest
import torch
from helpers.commands import CLASSIFIER, call, composed
from torch import nn
from training_helpers import TINY, Run, column, start

from langevin.assembly.run import make_data, make_module, make_trainer
from langevin.checkpoint import read_checkpoint
from langevin.data.module import DataModule
from langevin.training.means import ImageMeans

# Test images, and how many batches of them: fewer than processes, a last batch of which some have none, all there are.
CASES = ((1, 1.0), (2, 1.0), (5, 1.0), (7, 1.0), (297, 1.0), (297, 2), (297, 0.5))
ONCE = ("callbacks=[]", "batch_size=8", "trainer.max_steps=1", "trainer.val_check_interval=1", "optimizer.lr=0")
TASKS = {
    "denoiser": (*TINY, "likelihoods=[discrete_vlb]", "schedule.num_steps=20", "likelihoods.discrete_vlb.num_times=1"),
    "classifier": (*CLASSIFIER, "data=digits"),
}
SCRIPT = """
import json, os, sys
from pathlib import Path
from test_validation_means import validations

folder = Path(__file__).parent
found = validations(int(sys.argv[1]), folder)
(folder / f"rank_{os.environ.get('LOCAL_RANK', 0)}.json").write_text(json.dumps(found))
"""
# Trains on data with as few test images as the environment says.
FEW = """
import os
import langevin.commands.train
from test_validation_means import first

first(int(os.environ["TEST_IMAGES"]))
langevin.commands.train.main()
"""


def first(number, patch=setattr):
    """Keep only the first test images of the data."""
    prepare_data = DataModule.prepare_data

    def prepare(self):
        prepare_data(self)
        self.test_set = copy.copy(self.test_set)
        self.test_set.samples, self.test_set.labels = self.test_set.samples[:number], self.test_set.labels[:number]

    patch(DataModule, "prepare_data", prepare)


def validations(processes, folder):
    """The validation of one and the same model on some test images each, after a step that changes nothing."""
    found = {}
    for task, options in TASKS.items():
        given = (*options, *ONCE, f"trainer.devices={processes}", "trainer.accelerator=cpu")
        given = (*given, f"trainer.strategy={'auto' if processes == 1 else 'ddp'}", f"output_dir={folder}", "name=run")
        for images, batches in CASES:
            limited = {option.partition("=")[0]: option for option in (*given, f"trainer.limit_val_batches={batches}")}
            cfg, _ = composed("train", *limited.values())
            with pytest.MonkeyPatch.context() as patch:
                first(images, patch.setattr)
                data = make_data(cfg)
                data.prepare_data()
                torch.manual_seed(cfg.seed)
                module = make_module(cfg, data.spec)
                for network in (module.model.network, module.ema.network):
                    torch.manual_seed(0)
                    for weight in network.parameters():
                        nn.init.normal_(weight, std=0.05)
                trainer = make_trainer(cfg, folder, data.spec, data, module.codec)
                trainer.fit(module, datamodule=data)
            values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
            found[f"{task}, {images} images, {batches} of the batches"] = values
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return validations(1, tmp_path_factory.mktemp("alone"))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_log_what_one_does(tmp_path, alone, processes):
    """Also where some of them have no image, or none in the last batch."""
    (tmp_path / "script.py").write_text(SCRIPT)
    start(tmp_path / "script.py", str(processes))
    ranks = [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in range(processes)]
    assert all(rank == ranks[0] for rank in ranks), "which decides what best.ckpt is"
    assert ranks[0].keys() == alone.keys()
    for case, values in alone.items():
        assert ranks[0][case] == pytest.approx(values, rel=1e-6, abs=0), case


class Strategy:
    """What a process is sent by the others: the names of the first, and the sum of what all have."""

    root_device = torch.device("cpu")

    def __init__(self, names, totals):
        self.names, self.totals = names, torch.tensor(totals, dtype=torch.float64)

    def broadcast(self, names):
        return self.names

    def reduce(self, totals, reduce_op):
        assert (totals.dtype, reduce_op) == (torch.float64, "sum")
        return totals.add_(self.totals)


def test_a_process_adds_sums_and_its_number_of_images():
    means = ImageMeans()
    means.add({"loss": torch.tensor([1.0, 2.0]), "accuracy": torch.tensor([1.0, 1.0])})
    means.add({"loss": torch.tensor([4.0], dtype=torch.bfloat16), "accuracy": torch.tensor([0.0])})
    names = ["loss", "accuracy"]
    assert means.compute(Strategy(names, [0, 0, 0])) == {"loss": 7 / 3, "accuracy": 2 / 3}
    assert means.compute(Strategy(names, [2, 1, 2])) == {"loss": 8 / 5, "accuracy": 4 / 5}
    assert ImageMeans().compute(Strategy(names, [3, 7, 2])) == {"loss": 7 / 3, "accuracy": 2 / 3}
    assert ImageMeans().compute(Strategy([], [0])) == {}


def test_float32_would_not_do():
    means = ImageMeans()
    for part in (torch.tensor([2.0**25]), *torch.ones(3, 1)):
        means.add({"loss": part})
    assert means.compute(Strategy(["loss"], [0, 0]))["loss"] == (2**25 + 3) / 4


def train_on_few(folder, monkeypatch, images, *options):
    """The same run on two processes and on one."""
    given = (*options, "trainer.val_check_interval=2", "trainer.limit_val_batches=1.0", "callbacks=[checkpoint]")
    given = (*given, f"output_dir={folder}")
    (folder / "few.py").write_text(FEW)
    monkeypatch.setenv("TEST_IMAGES", str(images))
    first(images, monkeypatch.setattr)
    runs = []
    for name, extra in (("two", ("trainer=ddp_cpu",)), ("one", ())):
        last = {argument.partition("=")[0]: argument for argument in (*given, *extra, f"name={name}")}.values()
        done = start(folder / "few.py", *last) if extra else call("train", *last)[1:]
        runs.append(Run(0, *done, folder / name))
    return runs


@pytest.mark.slow
def test_fewer_test_images_than_processes(tmp_path, monkeypatch):
    """Lightning: "`DataLoader` within local rank has zero length"."""
    options = (*TINY, "model.dropout=0", "callbacks.checkpoint.monitor=val/loss", "likelihoods=[discrete_vlb]")
    options = (*options, "schedule.num_steps=20", "likelihoods.discrete_vlb.num_times=1")
    two, one = train_on_few(tmp_path, monkeypatch, 1, *options)
    for name in ("val/loss", "val/mse", "val/discrete_vlb", "val/discrete_vlb/decoder"):
        values = column(one.rows, name)
        assert list(values) == [2, 4, 6]
        assert column(two.rows, name) == pytest.approx(values, rel=1e-5)
    assert (two.directory / "checkpoints" / "best.ckpt").is_file()
    assert "sync_dist" not in two.err


@pytest.mark.slow
def test_the_accuracy_of_three_images_on_two_processes(tmp_path, monkeypatch):
    """It was 1.5 where all are right, and so was the best: Lightning cut their mean number, 3 / 2, to 1."""
    options = (*CLASSIFIER, "data=digits", "callbacks.checkpoint.monitor=val/accuracy", "callbacks.checkpoint.mode=max")
    options = (*options, "trainer.max_steps=20")  # by when one of the three is right
    two, one = train_on_few(tmp_path, monkeypatch, 3, *options)
    assert column(two.rows, "val/loss") == pytest.approx(column(one.rows, "val/loss"), rel=1e-5)
    accuracy = column(one.rows, "val/accuracy")
    assert column(two.rows, "val/accuracy") == accuracy
    assert set(accuracy.values()) <= {0, 1 / 3, 2 / 3, 1}
    assert max(accuracy.values()) > 0
    assert read_checkpoint(two.last)["callbacks"]["Checkpoint"]["best"] == -max(accuracy.values())
