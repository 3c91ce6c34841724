import pytest
import torch
from helpers.extractors import TinyExtractor

from langevin.errors import UserError
from langevin.features.extractor import FeatureExtractor


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


def test_grayscale_is_repeated_to_three_channels_for_who_takes_rgb(monkeypatch):
    probe = Probe()
    images = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    probe(images)
    assert torch.equal(probe.images[:2], torch.cat([images] * 3, dim=1))
    monkeypatch.setattr(Probe, "takes_rgb", False)
    probe(images)
    assert torch.equal(probe.images[:2], images)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_are_taken(channels):
    Probe().check((channels, 5, 7), "samples=there")


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(channels):
    with pytest.raises(UserError, match=f"^samples=there: its images have {channels} channels; allowed: 1 .* or 3$"):
        Probe().check((channels, 5, 7), "samples=there")


def test_record_is_of_plain_values():
    assert TinyExtractor(official=True).record() == {
        "extractor": "tiny-00000000",
        "sha256": "0" * 64,
        "preprocessing": "none",
        "official": True,
        "outputs": {"features": 16, "logits": 10, "spatial": 12},
    }


@pytest.mark.parametrize(("official", "expected"), [(True, "fid"), (False, "fd_probe-12345678")])
def test_only_official_weights_give_the_well_known_name(official, expected):
    probe = Probe()
    probe.official = official
    assert probe.metric_name("fid", "fd") == expected
