"""What studies of sampling share: a trained model, sampled in many ways, against the data it was trained on."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from langevin.assembly.check import check_model
from langevin.assembly.components import SAMPLING
from langevin.assembly.run import make_data
from langevin.assembly.saved import load_model, override
from langevin.checkpoint import find_checkpoint
from langevin.config.validate import CONF
from langevin.evaluation.evaluation import Evaluation
from langevin.features.inception import Inception
from langevin.metrics.class_accuracy import ClassAccuracy
from langevin.metrics.reference import Reference
from langevin.samplers.requests import Labels

BATCH = 250
Row = dict[str, str | int | float]


class Samples(NamedTuple):
    """Samples and what they cost.

    Attributes:
        images: uint8 (N, H, W, C).
        labels: the classes asked for, int64 (N,).
        accuracy: the share of them that a scikit-learn SVC fitted on the real images names as the class asked for.
        evaluations: of the network, for each.
    """

    images: Tensor
    labels: Tensor
    accuracy: float
    evaluations: int


class Sampled:
    """A trained model to sample from.

    Args:
        run: its folder.
        number: how many samples to make each time.
    """

    def __init__(self, run: Path, number: int) -> None:
        self.model = load_model(find_checkpoint(run))
        self.number = number
        data = make_data(self.model.cfg)
        data.prepare_data()
        self.real = torch.tensor(data.train_set.samples)
        self.real_labels = torch.tensor(data.train_set.labels)
        # Which asks for no features, and so keeps nothing.
        self.evaluation = Evaluation(Inception(), {"class_accuracy": ClassAccuracy()}, Path())
        cond = Labels(data.num_classes).cond(range(number))
        self.evaluation.prepare(number, Reference(data.train_set.samples, data.train_set.labels), cond)
        self.evaluation.gather()

    def __call__(self, *choices: str, seed: int = 0) -> Samples:
        """Sample with these choices of sample.py."""
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = override(self.model.cfg, compose("sample", list(choices)), SAMPLING)
        check_model(cfg, SAMPLING, self.model.spec)
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        self.evaluation.reset()
        generator = self.model.generator(cfg, None)
        batches = list(generator(self.model.denoiser, range(self.number), seed, BATCH, "cpu", count))
        for batch in batches:
            self.evaluation.add(batch)
        images = torch.cat([batch.samples.permute(0, 2, 3, 1) for batch in batches])
        labels = torch.cat([batch.cond["label"] for batch in batches])
        (accuracy,) = self.evaluation.compute()["class_accuracy"].values()
        return Samples(images, labels, accuracy, calls // len(batches))


def write_rows(path: Path, rows: Sequence[Mapping[str, str | int | float]]) -> None:
    """Write a table as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
