import pytest
import torch

from langevin.metrics.features import FeatureExtractor


class Probe(FeatureExtractor):
    """Tells what it was given and under which precision."""

    sizes = {"features": 1}  # noqa: RUF012
    name = "probe-12345678"

    def prepare(self):
        pass

    def extract(self, images):
        self.images = images
        self.precisions = (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision)
        return {"features": torch.ones(len(images), 4) @ torch.ones(4, 1)}


@pytest.fixture
def tf32():
    owners = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [owner.fp32_precision for owner in owners]
    for owner in owners:
        owner.fp32_precision = "tf32"
    yield owners
    for owner, value in zip(owners, before, strict=True):
        owner.fp32_precision = value


def test_tf32_is_off_inside_and_as_before_outside(tf32):
    probe = Probe()
    probe(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    assert probe.precisions == ("ieee", "ieee")
    assert [owner.fp32_precision for owner in tf32] == ["tf32", "tf32"]


def test_tf32_is_as_before_after_an_error(tf32, monkeypatch):
    monkeypatch.setattr(Probe, "extract", lambda self, images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Probe()(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    assert [owner.fp32_precision for owner in tf32] == ["tf32", "tf32"]


def test_autocast_is_off_inside():
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 4) @ torch.ones(4, 1)).dtype == torch.bfloat16
        assert Probe()(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))["features"].dtype == torch.float32


def test_grayscale_is_repeated_to_three_channels():
    probe = Probe()
    images = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    probe(images)
    assert torch.equal(probe.images, torch.cat([images] * 3, dim=1))


@pytest.mark.parametrize(("official", "expected"), [(True, "fid"), (False, "fd_probe-12345678")])
def test_only_official_weights_give_the_well_known_name(official, expected):
    probe = Probe()
    probe.official = official
    assert probe.metric_name("fid", "fd") == expected
