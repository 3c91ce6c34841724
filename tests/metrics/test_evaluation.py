import json
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from helpers.digits import digits
from helpers.extractors import TinyExtractor
from helpers.pictures import pictures

from langevin.errors import UserError
from langevin.metrics.class_accuracy import ClassAccuracy
from langevin.metrics.evaluation import Evaluation
from langevin.metrics.fid import FrechetDistance
from langevin.metrics.inception import Inception
from langevin.metrics.inception_score import InceptionScore
from langevin.metrics.kid import KernelDistance
from langevin.metrics.precision_recall import PrecisionRecall

N = 103


def make(**metrics):
    metrics = metrics or {
        "fid": FrechetDistance(),
        "inception_score": InceptionScore(),
        "class_accuracy": ClassAccuracy(),
        "kid": KernelDistance(subsets=4, subset_size=60),
        "precision_recall": PrecisionRecall(),
    }
    return Evaluation(TinyExtractor(), metrics)


def prepared(batch_size=32):
    images, labels = digits()
    evaluation = make()
    evaluation.prepare(N, images[:250], labels[:250])
    evaluation.add_reference(batch_size)
    return evaluation


def add(evaluation, index, offset=300, batch_size=10):
    """Add samples by index: digits, some of them asked for by a wrong name."""
    images, labels = digits()
    images = torch.from_numpy(images).permute(0, 3, 1, 2)[offset:]
    labels = torch.from_numpy(labels)[offset:] + (torch.arange(len(images)) % 5 == 0)
    for part in index.split(batch_size):
        evaluation.add(images[part], labels[part], part)


@pytest.fixture(scope="module")
def expected():
    """The values of two rounds in one process."""
    evaluation = prepared()
    add(evaluation, torch.arange(N))
    first = evaluation.compute()
    evaluation.reset()
    add(evaluation, torch.arange(N), offset=600)
    return first, evaluation.compute()


def close(values):
    return {name: pytest.approx(value, rel=1e-9, abs=1e-12) for name, value in values.items()}


def test_values_are_telling(expected):
    first, second = expected
    assert list(first) == [
        f"fd_tiny-00000000@{N}",
        f"classifier_score_tiny-00000000@{N}",
        f"classifier_score_std_tiny-00000000@{N}",
        "class_accuracy",
        f"kd_tiny-00000000@{N}",
        f"kd_std_tiny-00000000@{N}",
        f"precision_tiny-00000000@{N}",
        f"recall_tiny-00000000@{N}",
        f"density_tiny-00000000@{N}",
        f"coverage_tiny-00000000@{N}",
    ]
    for name in first:
        assert first[name] > 0.01
        assert first[name] != pytest.approx(second[name], rel=1e-3)
    assert 0.6 < first["class_accuracy"] < 0.8  # a fifth of the labels is wrong


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_does_not_matter(batch_size, expected):
    evaluation = prepared(batch_size)
    add(evaluation, torch.arange(N), batch_size=batch_size)
    assert evaluation.compute() == close(expected[0])


def test_reset_forgets_the_samples_only(expected):
    evaluation = prepared()
    seen = evaluation.features.images_seen
    assert seen == 250
    add(evaluation, torch.arange(40))
    evaluation.reset()
    for _ in range(2):
        add(evaluation, torch.arange(N))
        assert evaluation.compute() == close(expected[0])
        evaluation.reset()
    assert evaluation.features.images_seen == seen + 40 + 2 * N  # the reference once, each sample once for all metrics


def test_rounds_may_mix_inference_mode_and_none(expected):
    """Lightning validates in inference mode, but not every hook runs in it."""
    with torch.inference_mode():
        evaluation = prepared()
        evaluation.reset()
    add(evaluation, torch.arange(N))
    assert evaluation.compute() == close(expected[0])


def process(rank, world, folder, shares):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world)
    evaluation = prepared(batch_size=16)
    rounds = []
    for number, offset in enumerate((300, 600)):
        share = shares[(rank + number) % world]  # who had no sample now has some, and the other way round
        if share:
            add(evaluation, torch.tensor(share), offset)
        rounds.append(evaluation.compute())
        evaluation.reset()
    (folder / f"{rank}.json").write_text(json.dumps([rounds, evaluation.features.images_seen]))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("cuts", [[0, 31, N], [0, 70, N, N]], ids=["uneven", "one without a sample"])
def test_number_of_processes_does_not_matter(cuts, tmp_path, expected):
    order = np.random.default_rng(0).permutation(N)
    shares = [order[start:end].tolist() for start, end in pairwise(cuts)]
    world = len(shares)
    mp.spawn(process, (world, tmp_path, shares), nprocs=world)
    seen = 0
    for rank in range(world):
        rounds, images_seen = json.loads((tmp_path / f"{rank}.json").read_text())
        assert rounds == [close(values) for values in expected]
        seen += images_seen
    assert seen == 250 + 2 * N  # nobody did another's work


def test_missing_and_doubled_samples_are_noticed():
    for index in (torch.arange(N - 1), torch.arange(N + 1) % N):
        evaluation = prepared()
        add(evaluation, index)
        with pytest.raises(RuntimeError, match=rf"was given {len(index)} of {N} samples"):
            evaluation.compute()


def test_no_weights_are_looked_for_where_no_metric_needs_them(expected):
    images, labels = digits()
    evaluation = Evaluation(Inception("nowhere.pth"), {"class_accuracy": ClassAccuracy()})
    evaluation.prepare(N, images[:250], labels[:250])
    evaluation.add_reference(32)
    add(evaluation, torch.arange(N))
    assert evaluation.compute() == {"class_accuracy": expected[0]["class_accuracy"]}

    with pytest.raises(UserError, match="nowhere"):
        Evaluation(Inception("nowhere.pth"), {"inception_score": InceptionScore()}).prepare(N, images, labels)


def test_reference_is_not_passed_through_for_metrics_that_do_not_look_at_it():
    evaluation = make(inception_score=InceptionScore())
    evaluation.prepare(N, digits()[0], None)
    evaluation.add_reference(32)
    assert evaluation.features.images_seen == 0


def test_reference_may_be_a_read_only_memory_map(tmp_path, expected, recwarn):
    images, labels = digits()
    np.save(tmp_path / "images.npy", images[:250])
    evaluation = make()
    evaluation.prepare(N, np.load(tmp_path / "images.npy", mmap_mode="r"), labels[:250])
    evaluation.add_reference(32)
    add(evaluation, torch.arange(N))
    assert evaluation.compute() == close(expected[0])
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


def test_it_stays_out_of_a_modules_state_dict():
    module = torch.nn.Linear(2, 2)
    module.evaluation = prepared()
    assert set(module.state_dict()) == {"weight", "bias"}


def test_it_moves_before_and_after_prepare():
    images, labels = digits()
    evaluation = make().to("meta")
    evaluation.prepare(N, images[:250], labels[:250])
    assert evaluation.features.weight.device.type == "meta"
    assert evaluation.metrics["fid"].outer.device.type == "meta"
    assert evaluation.metrics["inception_score"].split_of.device.type == "meta"


@pytest.mark.parametrize(
    ("metrics", "arguments", "message"),
    [
        ({"class_accuracy": ClassAccuracy}, {"reference_labels": None}, r"metrics\.class_accuracy needs class labels"),
        (
            {"class_accuracy": ClassAccuracy},
            {"conditional": False},
            r"metrics\.class_accuracy needs a class-conditional",
        ),
        ({"fid": FrechetDistance}, {"num_samples": 15}, r"num_samples=15 is too few for FID"),
        ({"fid": partial(FrechetDistance, 2)}, {"num_samples": 1}, r"num_samples=1 is too few for FID"),
        ({"inception_score": InceptionScore}, {"num_samples": 9}, r"num_samples=9 is too few for .*splits=10"),
        ({"class_accuracy": ClassAccuracy}, {"num_samples": 0}, r"num_samples=0: must be at least 1"),
        (
            {"fid": FrechetDistance},
            {"reference_images": np.zeros((20, 8, 8, 4), np.uint8)},
            r"images of 4 channels: the metrics fid take images of 1 or 3",
        ),
    ],
)
def test_mistakes_are_found_in_prepare(metrics, arguments, message):
    images, labels = digits()
    evaluation = make(**{name: build() for name, build in metrics.items()})
    given = {"num_samples": N, "reference_images": images[:250], "reference_labels": labels[:250], **arguments}
    with pytest.raises(UserError, match=message):
        evaluation.prepare(**given)


def test_samples_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"= \(3, 16, 16\) cannot be compared with reference images of \(1, 8, 8\)"):
        prepared().add(pictures(2, size=16), torch.zeros(2), torch.arange(2))


def test_samples_without_labels_are_refused():
    with pytest.raises(UserError, match="metrics class_accuracy: the samples have no class labels"):
        prepared().add(pictures(2, size=8, channels=1), None, torch.arange(2))
