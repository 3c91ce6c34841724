import numpy as np
import pytest
import torch
from helpers.backbones import save_backbone
from helpers.extractors import TinyExtractor
from helpers.images import example_images
from helpers.measured import measured, reference_of

from langevin.errors import OptionError, UserError
from langevin.evaluation.evaluation import Evaluation
from langevin.images import from_uint8
from langevin.metrics.base import Plan
from langevin.metrics.lpips import LPIPS
from langevin.metrics.reference import Reference
from langevin.perceptual import lpips
from langevin.perceptual.lpips import LPIPSDistance
from langevin.samplers.generate import SampleBatch


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(save_backbone(tmp_path_factory.mktemp("backbone") / "squeeze.pth", "squeeze"))


def pair(count=23):
    return example_images(count, 32, seed=1), example_images(count, 32, seed=2)


def test_it_is_the_mean_distance_named_after_the_weights(weights):
    samples, targets = pair()
    distance = LPIPSDistance("squeeze", weights)
    expected = distance(from_uint8(samples), from_uint8(targets)).double().mean()
    order = torch.randperm(23, generator=torch.Generator().manual_seed(2))
    found = [
        measured(LPIPS("squeeze", weights), {"stored": samples}, reference_of(1), order=each, targets=targets)
        for each in (None, order)
    ]
    name = f"lpips_squeeze-{distance.record()['perceptual']['weights'][:8]}"
    assert [list(values) for values in found] == [[name], [name]]
    assert float(found[0][name]) == pytest.approx(float(expected), rel=1e-6)
    assert float(found[1][name]) == pytest.approx(float(found[0][name]), rel=1e-12), "of full batches alone"


def test_only_the_published_file_gives_the_plain_name(weights, monkeypatch):
    monkeypatch.setattr(LPIPSDistance, "official", True)
    samples, targets = pair(2)
    metric = LPIPS("squeeze", weights)
    assert list(measured(metric, {"stored": samples}, reference_of(1), targets=targets)) == ["lpips_squeeze"]
    assert float(measured(metric, {"stored": targets}, reference_of(1), targets=targets)["lpips_squeeze"]) == 0


def test_the_protocol_knows_the_weights_not_their_place(weights, tmp_path):
    samples, targets = pair(5)
    metric, target = LPIPS("squeeze", weights), Reference(targets.permute(0, 2, 3, 1).numpy())
    settings = {"lpips": {"net": "squeeze", "weights": weights}}
    evaluation = Evaluation(TinyExtractor(), {"lpips": metric}, tmp_path, settings)
    evaluation.prepare(5, target, {}, target)
    evaluation.gather()
    result = evaluation.measure([SampleBatch(torch.arange(5), samples, {}, target=targets)], None)
    assert result.protocol["metrics"]["lpips"]["settings"] == {"net": "squeeze", **metric.distance.record()}


def test_images_that_are_too_small_and_missing_weights_are_refused(weights, tmp_path, monkeypatch):
    metric = LPIPS("squeeze", weights)
    plan = Plan(9, reference_of(9), TinyExtractor(), target=reference_of(9))
    with pytest.raises(UserError, match=r"^metrics\.lpips\.net is squeeze, and the images are of 8 x 8 pixels; .*drop"):
        metric.check(plan)
    metric.check(plan._replace(target=Reference(np.zeros((4, 17, 20, 1), np.uint8))))
    monkeypatch.setattr(lpips.torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(OptionError, match=r"weights is null, .* AlexNet, the file alexnet-owt-7be5be79\.pth"):
        LPIPS()
