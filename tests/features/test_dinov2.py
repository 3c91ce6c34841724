"""DINOv2, by a small stand-in for its repository in torch hub's cache."""

import socket
import time
import urllib.request
from typing import get_args, get_type_hints
from urllib.error import URLError

import pytest
import torch
from helpers.images import example_images
from torch_fidelity import feature_extractor_dinov2

from langevin.errors import UserError
from langevin.features import weights
from langevin.features.dinov2 import DINOv2

HUBCONF = """
import torch

def dinov2_vits14(pretrained=True):
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 5))
    url = "http://127.0.0.1:1/dinov2_vits14_pretrain.pth"
    network.load_state_dict(torch.hub.load_state_dict_from_url(url, map_location="cpu"))
    return network
"""


@pytest.fixture
def offline(monkeypatch):
    def refuse(request):
        raise URLError("no internet here")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)


@pytest.fixture
def cached(hub, offline):
    """The weights in the cache."""
    (hub / "facebookresearch_dinov2_main").mkdir(parents=True)
    (hub / "facebookresearch_dinov2_main" / "hubconf.py").write_text(HUBCONF)
    (hub / "checkpoints").mkdir()
    generator = torch.Generator().manual_seed(0)
    state = {"2.weight": torch.randn(5, 12, generator=generator), "2.bias": torch.randn(5, generator=generator)}
    torch.save(state, hub / "checkpoints" / "dinov2_vits14_pretrain.pth")
    return state


def test_outputs_are_the_networks_of_normalized_images(cached):
    extractor = DINOv2("dinov2-vit-s-14")
    assert extractor.name == "dinov2"
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    extractor.prepare()
    assert torch.equal(torch.rand(3), expected), "it leaves the random numbers alone"

    images = example_images(4, size=224)  # of its own size, so that nothing is resized
    mean, std = (torch.tensor(of)[:, None, None] for of in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    quarters = ((images / 255 - mean) / std).reshape(4, 3, 2, 112, 2, 112).mean((3, 5)).flatten(1)
    theirs = quarters @ cached["2.weight"].T + cached["2.bias"]
    torch.testing.assert_close(extractor(images)["features"], theirs, rtol=1e-4, atol=1e-4)
    assert theirs.std(0).mean() > 0.1

    assert extractor.name == f"dinov2-vit-s-14-{extractor.sha256[:8]}"
    record = extractor.record()
    assert (record["outputs"], record["official"]) == ({"features": 5}, False)
    assert record["preprocessing"].endswith("to 224 x 224, normalized as ImageNet's images")


def test_is_named_by_its_weights(cached, hub):
    first, second = DINOv2("dinov2-vit-s-14"), DINOv2("dinov2-vit-s-14")
    first.prepare()
    cached["2.bias"][0] += 1
    torch.save(cached, hub / "checkpoints" / "dinov2_vits14_pretrain.pth")
    second.prepare()
    assert first.sha256 != second.sha256


def test_offline_says_what_to_put_where(hub, offline):
    with pytest.raises(
        UserError, match=r"^features\.model is dinov2-vit-b-14, which torch hub does not give \("
    ) as caught:
        DINOv2("dinov2-vit-b-14").prepare()
    message = str(caught.value)
    assert f"at {hub}/facebookresearch_dinov2_main, and its weights" in message
    assert message.endswith(f"dinov2_vitb14/dinov2_vitb14_pretrain.pth, in {hub}/checkpoints")
    assert len(message.splitlines()) == 1


def test_without_its_weights_in_the_cache_it_reports_it_too(cached, hub):
    (hub / "checkpoints" / "dinov2_vits14_pretrain.pth").unlink()
    with pytest.raises(UserError, match=r"torch hub does not give \(.*no internet here.*dinov2_vits14_pretrain"):
        DINOv2("dinov2-vit-s-14").prepare()


def test_silent_network_does_not_hang(hub, monkeypatch):
    monkeypatch.setattr(weights, "CONNECTION_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, answers nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(torch.hub, "urlopen", lambda request: urllib.request.urlopen(url))
        start = time.monotonic()
        with pytest.raises(UserError, match=r"torch hub does not give \(timed out\)"):
            DINOv2("dinov2-vit-s-14").prepare()
    assert time.monotonic() - start < 30
    assert socket.getdefaulttimeout() is None


def test_models_are_those_of_torch_fidelity():
    assert set(get_args(get_type_hints(DINOv2.__init__)["model"])) == set(feature_extractor_dinov2.MODEL_METADATA)
