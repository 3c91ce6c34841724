"""What restoration makes of measured digits that a model has not seen, beside what needs no model.

Usage: ``python -m experiments.restoration.digits RUN [--number=100] [--steps=10,40]``, RUN being a model of digits
without labels. It writes results.csv, and a figure for each operator, beside itself.
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from experiments.sampled import Row, write_rows
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import langevin
from langevin.data.digits import Digits
from langevin.evaluation.evaluation import Evaluation
from langevin.features.inception import Inception
from langevin.metrics.class_accuracy import ClassAccuracy
from langevin.metrics.consistency import Consistency
from langevin.metrics.psnr import PSNR
from langevin.metrics.reference import Reference
from langevin.modalities.image import ImageModality
from langevin.restoration.operators.average import Average
from langevin.restoration.operators.box import BoxMask
from langevin.restoration.operators.operator import Operator
from langevin.samplers.pipeline import SampleBatch

NOISES = (0.0, 0.1)
SHOWN = 10
HERE = Path(__file__).parent


class Task(NamedTuple):
    """What is measured of the digits.

    Attributes:
        operator: it.
        overrides: how a command is told of it.
    """

    operator: Operator
    overrides: tuple[str, ...]


class Arm(NamedTuple):
    """A method with its sampler.

    Attributes:
        sampler: its name.
        overrides: how a command is told of the rest.
        takes_noise: whether a measurement may have noise.
    """

    sampler: str
    overrides: tuple[str, ...]
    takes_noise: bool = True


TASKS = {
    "average": Task(Average(2), ("operators=[average]", "operators.average.factor=2")),
    "box": Task(BoxMask(), ("operators=[box]",)),
}
ARMS = {
    "ddnm, ddim": Arm("ddim", ("restoration=ddnm",)),
    "ddnm, ddim, eta 0.85": Arm("ddim", ("restoration=ddnm", "sampler.eta=0.85")),
    "pigdm, ddim": Arm("ddim", ("restoration=pigdm",)),
    "mmps, ddim": Arm("ddim", ("restoration=mmps",)),
    "dps, ancestral, zeta 0.3": Arm("ancestral", ("restoration=dps",)),
    "dps, ancestral, zeta 3": Arm("ancestral", ("restoration=dps", "restoration.zeta=3")),
    "ilvr, ancestral": Arm("ancestral", ("restoration=ilvr",), False),
    "repaint, ancestral, 5 x 5": Arm(
        "ancestral", ("restoration=repaint", "restoration.jump_length=5", "restoration.jump_repeats=5"), False
    ),
}


@contextmanager
def counted(network: nn.Module) -> Iterator[list[int]]:
    """How often a network is evaluated, and how often a gradient goes back through it: two numbers."""
    counts = [0, 0]

    def forward(*_: object) -> None:
        counts[0] += 1

    def backward(*_: object) -> None:
        counts[1] += 1

    hooks = [network.register_forward_hook(forward), network.register_full_backward_hook(backward)]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def made(run: langevin.Run, number: int, sampler: str, steps: int, overrides: Sequence[str]) -> Tensor:
    """Samples uint8 (N, C, H, W), all in one batch."""
    samples = run.sample(number, sampler=sampler, steps=steps, batch_size=number, device="cpu", overrides=overrides)
    return torch.from_numpy(samples.samples).movedim(-1, 1)


class Judge:
    """Measures restored digits.

    Args:
        number: of the held-out digits, the first so many, that are restored.
    """

    def __init__(self, number: int) -> None:
        train, test = (Digits().load(split) for split in ("train", "test"))
        assert train.labels is not None
        assert test.labels is not None
        self.reference = Reference(train.lazy.array[..., None], train.labels)
        self.images: NDArray[np.uint8] = test.lazy.array[:number, ..., None]
        self.labels = torch.from_numpy(test.labels[:number])

    @property
    def originals(self) -> Tensor:
        """Them, uint8 (N, 1, 8, 8)."""
        return torch.from_numpy(self.images).movedim(-1, 1)

    def __call__(self, images: Tensor, operator: Operator) -> Row:
        """PSNR in dB, consistency in levels of 255, and the accuracy of an SVC fitted on training digits."""
        metrics = {"psnr": PSNR(), "consistency": Consistency(operator), "class_accuracy": ClassAccuracy()}
        evaluation = Evaluation(Inception(), metrics, Path())  # none asks for features, and so nothing is kept
        cond = {"label": self.labels}
        evaluation.prepare(len(images), self.reference, cond, Reference(self.images))
        evaluation.gather()
        evaluation.add(SampleBatch(torch.arange(len(images)), images, cond, self.originals))
        return {key: round(value, 3) for values in evaluation.compute().values() for key, value in values.items()}


def without_model(task: Task, originals: Tensor) -> dict[str, Tensor]:
    """What needs no model, made of noiseless measurements: uint8 (N, 1, 8, 8) each."""
    modality, shape = ImageModality(), tuple(originals.shape[1:])
    y = task.operator(modality.to_model(originals))
    plain = {"A^+ y": task.operator.pseudo_inverse(y, shape)}
    if y.shape[1:] != originals.shape[1:]:
        for mode in ("bilinear", "bicubic"):
            plain[mode] = functional.interpolate(y, size=shape[1:], mode=mode, align_corners=False)
    return {name: modality.from_model(x) for name, x in plain.items()}


def rows_of(
    run: langevin.Run, judge: Judge, steps: list[int], place: Path
) -> tuple[list[Row], dict[str, dict[str, Tensor]]]:
    """The results, a row each; and for each operator what was made without noise and with the most steps, by method.

    Args:
        run: the model.
        judge: what measures the images.
        steps: of the samplers.
        place: a .npz of the originals.
    """
    rows: list[Row] = []
    shown: dict[str, dict[str, Tensor]] = {}
    for title, task in TASKS.items():
        shown[title] = {"original": judge.originals}
        for name, images in without_model(task, judge.originals).items():
            row: Row = {"measured": title, "noise": 0.0, "method": name, "steps": 0}
            rows.append(row | judge(images, task.operator))
            shown[title][name] = images
        for noise, (name, arm), each in itertools.product(NOISES, ARMS.items(), steps):
            if noise > 0 and not arm.takes_noise:
                continue
            measurement = (f"measurement.originals={place}", f"measurement.noise={noise}")
            overrides = (*arm.overrides, *task.overrides, *measurement)
            with counted(run.model.network) as counts:
                images = made(run, len(judge.images), arm.sampler, each, overrides)
            row = {"measured": title, "noise": noise, "method": name, "steps": each}
            rows.append(row | judge(images, task.operator))
            rows[-1] |= {"evaluations": counts[0], "gradients": counts[1]}
            print(*rows[-1].values(), sep=", ", flush=True)
            if noise == 0:
                shown[title][name.partition(",")[0]] = images
    return rows, shown


def main() -> None:
    """Write results.csv and samples.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--steps", type=lambda text: [int(each) for each in text.split(",")], default=[10, 40])
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    judge = Judge(options.number)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "originals.npz"
        np.savez(place, arr_0=judge.images)
        rows, shown = rows_of(langevin.load(options.run), judge, options.steps, place)
    write_rows(options.out / "results.csv", [dict.fromkeys(rows[-1], "") | row for row in rows])
    for title, kinds in shown.items():
        first = {name: images[:SHOWN] for name, images in kinds.items()}
        ImageModality().beside(first, SHOWN).write(options.out / f"{title}.png")


if __name__ == "__main__":
    main()
