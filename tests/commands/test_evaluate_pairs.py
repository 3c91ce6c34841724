"""Reconstructions beside their originals: the reference, where none is given, is the originals."""

import json

import numpy as np
import pytest
import torch
from helpers.backbones import save_backbone
from helpers.commands import call
from helpers.images import example_images
from PIL import Image

from langevin.metrics.fid import frechet_distance, rooted_rows

NETWORK = """
import torch
def features():
    return lambda images: torch.stack([images.float().mean((1, 2, 3)), images.float().std((1, 2, 3))], dim=1)
"""


@pytest.fixture
def pair(tmp_path):
    """Reconstructions and originals, in folders whose files are written in no order."""
    originals = example_images(40, 32).permute(0, 2, 3, 1).numpy()
    noise = np.random.default_rng(0).integers(-20, 21, originals.shape)
    samples = (originals + noise).clip(0, 255).astype(np.uint8)
    for kind, images in (("samples", samples), ("originals", originals)):
        (tmp_path / kind).mkdir()
        for index in np.random.default_rng(1).permutation(40):
            Image.fromarray(images[index]).save(tmp_path / kind / f"{index:03d}.png")
    return samples, originals


def evaluate(folder, *overrides):
    return call("evaluate", f"samples={folder / 'samples'}", f"target={folder / 'originals'}", *overrides)


def test_pairs_need_neither_reference_nor_inception(pair, tmp_path):
    weights = save_backbone(tmp_path / "weights.pth", "squeeze")
    lpips = "metrics.lpips.net=squeeze", f"metrics.lpips.weights={weights}"
    result = evaluate(tmp_path, "metrics=[psnr,ssim,lpips]", *lpips, "features.weights=nowhere.pth")
    assert result.status == 0, result.err
    samples, originals = pair
    report = json.loads((tmp_path / "samples" / "metrics.json").read_text())
    error = ((samples.astype(float) - originals) ** 2).mean((1, 2, 3))
    assert report["metrics"]["psnr"] == pytest.approx((10 * np.log10(255**2 / error)).mean(), rel=1e-12)
    assert 0.3 < report["metrics"]["ssim"] < 0.95
    assert report["reference"] == {"path": str(tmp_path / "originals"), "number": 40}
    protocol = report["protocol"]
    digest = protocol["metrics"]["lpips"]["settings"]["perceptual"]["weights"]
    assert report["metrics"][f"lpips_squeeze-{digest[:8]}"] > 0
    assert protocol["features"] is None
    assert protocol["target"] == protocol["reference"]


def test_missing_weights_are_reported_at_once(tmp_path):
    result = evaluate(tmp_path, "metrics=[lpips]", f"metrics.lpips.weights={tmp_path / 'nowhere.pth'}")
    assert result.status == 1
    assert f"metrics.lpips.weights: is {tmp_path / 'nowhere.pth'}, and there is no such file; allowed:" in result.err
    assert "alexnet-owt-7be5be79.pth" in result.err
    assert "Traceback" not in result.err


def test_rfid_is_of_the_originals(pair, tmp_path, monkeypatch):
    (tmp_path / "my_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = "metrics=[rfid,fid]", "features=module", "features.target=my_network:features"
    result = evaluate(tmp_path, *options)
    assert result.status == 0, result.err
    values = json.loads((tmp_path / "samples" / "metrics.json").read_text())["metrics"]
    ((name, value), (_, of_fid)) = values.items()
    assert name.startswith("rfd_module_features-")
    assert name.endswith("@40")
    rows = [torch.from_numpy(np.stack([x.mean((1, 2, 3)), x.reshape(40, -1).std(1, ddof=1)], 1)) for x in pair]
    assert value == of_fid == pytest.approx(float(frechet_distance(*map(rooted_rows, rows))), rel=1e-4)

    other = evaluate(tmp_path, *options, f"reference={tmp_path / 'samples'}")
    assert other.status == 1
    assert "error: metrics.rfid compares reconstructions with their targets, but the reference is another" in other.err
    assert "Traceback" not in other.err
