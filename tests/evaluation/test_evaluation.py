import json
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from helpers.digits import digits
from helpers.extractors import TinyExtractor
from helpers.images import example_images
from helpers.processes import context

from langevin.errors import UserError
from langevin.evaluation.evaluation import Evaluation
from langevin.features.inception import Inception
from langevin.metrics.class_accuracy import ClassAccuracy
from langevin.metrics.energy_distance import EnergyDistance
from langevin.metrics.fid import FrechetDistance
from langevin.metrics.fid_by_class import FrechetDistanceByClass
from langevin.metrics.fid_infinity import ExtrapolatedFrechetDistance
from langevin.metrics.gathered import Gaussian
from langevin.metrics.inception_score import InceptionScore
from langevin.metrics.kid import KernelDistance
from langevin.metrics.memorisation import Memorisation
from langevin.metrics.precision_recall import PrecisionRecall
from langevin.metrics.psnr import PSNR
from langevin.metrics.reference import Reference
from langevin.metrics.sfid import SpatialFrechetDistance
from langevin.samplers.pipeline import SampleBatch

N = 103


def make(directory, **metrics):
    metrics = metrics or {
        "fid": FrechetDistance(),
        "inception_score": InceptionScore(),
        "class_accuracy": ClassAccuracy(),
        "kid": KernelDistance(subsets=4, subset_size=60),
        "precision_recall": PrecisionRecall(),
        "sfid": SpatialFrechetDistance(),
        "fid_infinity": ExtrapolatedFrechetDistance(num_sizes=4, min_size=60),
        "fid_by_class": FrechetDistanceByClass(min_samples=4),
        "memorisation": Memorisation(shown=3, neighbours=2),
        "energy_distance": EnergyDistance(),
        "psnr": PSNR(),
    }
    return Evaluation(TinyExtractor(), metrics, directory)


ASKED = {"label": torch.from_numpy(digits()[1][300 : 300 + N])}


TARGETS = digits()[0][900 : 900 + N]


def reference():
    images, labels = digits()
    return Reference(images[:250], labels[:250])


def prepared(directory):
    evaluation = make(directory)
    evaluation.prepare(N, reference(), ASKED, Reference(TARGETS))
    evaluation.gather()
    return evaluation


def flat(values):
    return {name: value for of_metric in values.values() for name, value in of_metric.items()}


def add(evaluation, index, offset=300, batch_size=10):
    """Add samples by index: digits, some of them asked for by a wrong name."""
    images, labels = digits()
    images = torch.from_numpy(images).permute(0, 3, 1, 2)[offset:]
    labels = (torch.from_numpy(labels)[offset:] + (torch.arange(len(images)) % 5 == 0)) % 10
    targets = torch.from_numpy(TARGETS).permute(0, 3, 1, 2)
    for part in index.split(batch_size):
        evaluation.add(SampleBatch(part, images[part], {"label": labels[part]}, target=targets[part]))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The values of two rounds in one process."""
    evaluation = prepared(tmp_path_factory.mktemp("expected"))
    add(evaluation, torch.arange(N))
    first = evaluation.compute()
    evaluation.reset()
    add(evaluation, torch.arange(N), offset=600)
    return first, evaluation.compute()


def close(values):
    return {
        metric: {name: pytest.approx(value, rel=1e-9, abs=1e-12) for name, value in of_metric.items()}
        for metric, of_metric in values.items()
    }


def test_values_are_telling(expected):
    first, second = map(flat, expected)
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
        f"sfd_tiny-00000000@{N}",
        f"fd_infinity_tiny-00000000@{N}",
        f"fd_by_class_tiny-00000000@{N}",
        f"authenticity_tiny-00000000@{N}",
        f"energy_distance@{N}",
        "psnr",
    ]
    for name in first:
        assert abs(first[name]) > 0.01
        assert first[name] != pytest.approx(second[name], rel=1e-3)
    assert 0.6 < first["class_accuracy"] < 0.8  # a fifth of the labels is wrong


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_does_not_matter(batch_size, expected, tmp_path):
    evaluation = prepared(tmp_path)
    add(evaluation, torch.arange(N), batch_size=batch_size)
    assert evaluation.compute() == close(expected[0])


def test_reset_forgets_the_samples_only(expected, tmp_path):
    evaluation = prepared(tmp_path)
    seen = evaluation.features.images_seen
    assert seen == 250
    add(evaluation, torch.arange(40))
    evaluation.reset()
    for _ in range(2):
        add(evaluation, torch.arange(N))
        assert evaluation.compute() == close(expected[0])
        evaluation.reset()
    assert evaluation.features.images_seen == seen + 32 + 2 * N


def test_rounds_may_mix_inference_mode_and_none(expected, tmp_path):
    """Lightning validates in inference mode, but not every hook runs in it."""
    with torch.inference_mode():
        evaluation = prepared(tmp_path)
        evaluation.reset()
    add(evaluation, torch.arange(N))
    assert evaluation.compute() == close(expected[0])


def process(rank, world, folder, shares):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world)
    evaluation = prepared(folder / "statistics")
    rounds = []
    for number, offset in enumerate((300, 600)):
        share = shares[(rank + number) % world]  # who had no sample now has some, and the other way round
        if share:
            add(evaluation, torch.tensor(share), offset)
        rounds.append(evaluation.compute())
        np.save(folder / f"{rank}-{number}.npy", evaluation.metrics["memorisation"].figure.pixels)
        evaluation.reset()
    seen = evaluation.features.images_seen
    again = make(folder / "statistics")
    again.prepare(N, reference(), ASKED, Reference(TARGETS))
    again.gather()
    assert again.features.images_seen == 0  # every process finds what one has kept
    (folder / f"{rank}.json").write_text(json.dumps([rounds, seen]))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "cuts",
    [
        pytest.param([0, N], id="one", marks=pytest.mark.slow),
        pytest.param([0, 31, N], id="two, uneven"),
        pytest.param([0, 70, N, N], id="three, one without a sample", marks=pytest.mark.slow),
    ],
)
def test_number_of_processes_does_not_matter(cuts, tmp_path, expected):
    order = np.random.default_rng(0).permutation(N)
    shares = [order[start:end].tolist() for start, end in pairwise(cuts)]
    world = len(shares)
    mp.start_processes(process, (world, tmp_path, shares), nprocs=world, start_method=context.get_start_method())
    seen = 0
    for rank in range(world):
        rounds, images_seen = json.loads((tmp_path / f"{rank}.json").read_text())
        assert rounds == [close(values) for values in expected]
        seen += images_seen
        for number in range(2):
            assert np.array_equal(np.load(tmp_path / f"{rank}-{number}.npy"), np.load(tmp_path / f"0-{number}.npy"))
    assert seen == 250 + 2 * N  # nobody did another's work


def test_missing_and_doubled_samples_are_noticed(tmp_path):
    for index in (torch.arange(N - 1), torch.arange(N + 1) % N):
        evaluation = prepared(tmp_path)
        add(evaluation, index)
        with pytest.raises(RuntimeError, match=rf"was given {len(index)} of {N} samples"):
            evaluation.compute()


def test_no_weights_are_looked_for_where_no_metric_needs_them(expected, tmp_path):
    evaluation = Evaluation(Inception("nowhere.pth"), {"class_accuracy": ClassAccuracy()}, tmp_path)
    evaluation.prepare(N, reference(), ASKED)
    evaluation.gather()
    add(evaluation, torch.arange(N))
    assert evaluation.compute() == {"class_accuracy": expected[0]["class_accuracy"]}

    with pytest.raises(UserError, match="nowhere"):
        Evaluation(Inception("nowhere.pth"), {"inception_score": InceptionScore()}, tmp_path).prepare(
            N, reference(), ASKED
        )


def test_reference_is_not_passed_through_for_metrics_that_do_not_look_at_it(tmp_path):
    evaluation = make(tmp_path, inception_score=InceptionScore())
    evaluation.prepare(N, Reference(digits()[0]), {})
    evaluation.gather()
    assert evaluation.features.images_seen == 0


def test_reference_may_be_a_read_only_memory_map(tmp_path, expected, recwarn):
    images, labels = digits()
    np.save(tmp_path / "images.npy", images[:250])
    evaluation = make(tmp_path)
    mapped = Reference(np.load(tmp_path / "images.npy", mmap_mode="r"), labels[:250])
    evaluation.prepare(N, mapped, ASKED, Reference(TARGETS))
    evaluation.gather()
    add(evaluation, torch.arange(N))
    assert evaluation.compute() == close(expected[0])
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


def test_it_stays_out_of_a_modules_state_dict(tmp_path):
    module = torch.nn.Linear(2, 2)
    module.evaluation = prepared(tmp_path)
    assert set(module.state_dict()) == {"weight", "bias"}


def test_it_moves_before_and_after_prepare(tmp_path):
    evaluation = make(tmp_path).to("meta")
    evaluation.prepare(N, reference(), ASKED, Reference(TARGETS))
    assert evaluation.features.weight.device.type == "meta"
    evaluation = prepared(tmp_path).to("meta")
    assert evaluation.features.weight.device.type == "meta"
    assert evaluation.metrics["fid"].samples.outer.device.type == "meta"
    assert evaluation.metrics["inception_score"].split_of.device.type == "meta"


class Other(FrechetDistance):
    reads = ("colours",)


@pytest.mark.parametrize(
    ("metrics", "arguments", "message"),
    [
        ({"class_accuracy": ClassAccuracy}, {"labels": None}, r"metrics\.class_accuracy needs class labels"),
        (
            {"class_accuracy": ClassAccuracy},
            {"asked": {}},
            r"metrics\.class_accuracy needs the label of each sample",
        ),
        ({"psnr": PSNR}, {}, r"metrics\.psnr needs the target of each sample.* samples=PLACE target=PLACE does"),
        ({"fid": FrechetDistance}, {"num_samples": 15}, r"num_samples=15 is too few for metrics.fid"),
        ({"fid": partial(FrechetDistance, 2)}, {"num_samples": 1}, r"num_samples=1 is too few for metrics.fid"),
        ({"inception_score": InceptionScore}, {"num_samples": 9}, r"num_samples=9 is too few for .*splits=10"),
        ({"class_accuracy": ClassAccuracy}, {"num_samples": 0}, r"num_samples=0: must be at least 1"),
        ({"memorisation": Memorisation}, {"images": None}, r"metrics\.memorisation needs the reference's images"),
        ({"precision_recall": PrecisionRecall}, {"images": None}, r"holds statistics alone \(features\)"),
        ({"sfid": SpatialFrechetDistance}, {"images": None}, r"ask for more of the images \(spatial\)"),
        ({"other": Other}, {}, r"metrics\.other needs the extractor's colours, but tiny-00000000 gives features, logi"),
        (
            {"fid": FrechetDistance},
            {"images": np.zeros((20, 8, 8, 4), np.uint8)},
            r"reference: its images have 4 channels; allowed: 1 \(repeated to three\) or 3",
        ),
    ],
)
def test_mistakes_are_found_in_prepare(metrics, arguments, message, tmp_path):
    images, labels = digits()
    evaluation = make(tmp_path, **{name: build() for name, build in metrics.items()})
    given = {"num_samples": N, "images": images[:250], "labels": labels[:250], "asked": ASKED, **arguments}
    published = {"features": Gaussian(250, torch.zeros(16), torch.eye(16))} if given["images"] is None else None
    extractor = evaluation.features.name if published else None
    with pytest.raises(UserError, match=message):
        evaluation.prepare(
            given["num_samples"],
            Reference(given["images"], given["labels"], published, extractor),
            given["asked"],
        )


def test_samples_of_another_size_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"images of .* \(3, 16, 16\), but the reference\'s are of \(1, 8, 8\)"):
        prepared(tmp_path).add(SampleBatch(torch.arange(2), example_images(2, size=16), {"label": torch.zeros(2)}))
