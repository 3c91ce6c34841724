import hashlib
import pickle
import socket
import time

import pytest
import torch
from helpers.attack import Attack
from helpers.images import example_images
from torch.nn import functional
from torch_fidelity import feature_extractor_inceptionv3

from langevin.errors import UserError
from langevin.features import inception, weights
from langevin.features.inception import Inception


@pytest.fixture
def empty_hub(hub):
    """Where the official file would lie."""
    return hub / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"


def serve_from(port, monkeypatch):
    url = f"http://127.0.0.1:{port}/weights-inception-2015-12-05-6726825d.pth"
    monkeypatch.setattr(feature_extractor_inceptionv3, "URL_INCEPTION_V3", url)
    monkeypatch.setattr(weights, "CONNECTION_SECONDS", 0.3)


# Of torch-fidelity's network, in the order of its forward.
BEFORE_MIXED_6D = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
BEFORE_MIXED_6D += ("MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c")


ROUNDING = {"rtol": 1e-4, "atol": 1e-4}
"""Ours takes the images one by one, theirs together: sums of float32 in another order."""


def as_adm_does(network, images):
    """TensorFlow's mixed_6/conv:0, whose last axis is the channels, cut to seven of them and made flat."""
    resize = feature_extractor_inceptionv3.interpolate_bilinear_2d_like_tensorflow1x
    x = (resize(images.float(), size=(299, 299), align_corners=False) - 128) / 128
    for layer in BEFORE_MIXED_6D:
        x = getattr(network, layer)(x)
    branch = network.Mixed_6d.branch1x1
    conv = functional.conv2d(x, branch.conv.weight)
    mean, variance, gain, shift = (
        getattr(branch.bn, name)[:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    tensor = ((conv - mean) / (variance + 1e-3).sqrt() * gain + shift).clamp(min=0).numpy().transpose(0, 2, 3, 1)
    assert tensor.shape == (len(images), 17, 17, 192)
    return tensor[..., :7].reshape(len(images), -1)


@pytest.mark.slow
def test_outputs_are_torch_fidelitys_and_differ_between_images(inception_weights):
    extractor = Inception(str(inception_weights))
    extractor.prepare()
    outputs = extractor(example_images(2))
    theirs = feature_extractor_inceptionv3.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(inception_weights)
    )
    for ours, expected in zip((outputs["features"], outputs["logits"]), theirs(example_images(2)), strict=True):
        torch.testing.assert_close(ours, expected, **ROUNDING)
    torch.testing.assert_close(outputs["spatial"], torch.from_numpy(as_adm_does(theirs, example_images(2))), **ROUNDING)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        name: (2, size) for name, size in Inception.sizes.items()
    }
    for value in outputs.values():
        assert value.dtype == torch.float32
        assert value.std(0).mean() > 0.05  # or the comparisons with torch-fidelity would show nothing


def test_constructor_touches_nothing(empty_hub):
    Inception()
    Inception("nowhere.pth")
    assert not empty_hub.parent.exists()


def test_prepare_leaves_the_random_numbers_alone(inception_weights):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Inception(str(inception_weights)).prepare()
    assert torch.equal(torch.rand(3), expected)


def test_weights_are_named_by_their_content(inception_weights, monkeypatch):
    sha256 = hashlib.sha256(inception_weights.read_bytes()).hexdigest()
    extractor = Inception(str(inception_weights))
    extractor.prepare()
    assert (extractor.name, extractor.sha256, extractor.official) == (f"inception-{sha256[:8]}", sha256, False)
    assert extractor.record()["outputs"] == {"features": 2048, "logits": 1008, "spatial": 2023}

    monkeypatch.setattr(inception, "OFFICIAL_SHA256_PREFIX", sha256[:8])
    extractor = Inception(str(inception_weights))
    extractor.prepare()
    assert (extractor.name, extractor.official) == (f"inception-{sha256[:8]}", True)


def test_official_prefix_is_the_one_in_torch_fidelitys_file_name():
    assert feature_extractor_inceptionv3.URL_INCEPTION_V3.endswith(f"-{inception.OFFICIAL_SHA256_PREFIX}.pth")


def test_cached_weights_are_used_without_a_download(inception_weights, empty_hub, monkeypatch):
    serve_from(1, monkeypatch)
    empty_hub.parent.mkdir(parents=True)
    empty_hub.symlink_to(inception_weights)
    extractor = Inception()
    extractor.prepare()
    assert extractor.name == f"inception-{hashlib.sha256(inception_weights.read_bytes()).hexdigest()[:8]}"


def test_missing_file_is_named():
    with pytest.raises(UserError, match=r"features\.weights=nowhere\.pth: cannot be read \(No such file"):
        Inception("nowhere.pth").prepare()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda path: path.write_text("not weights"), id="text"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: torch.save(torch.zeros(3), path), id="tensor"),
        pytest.param(lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path), id="other network"),
        pytest.param(lambda path: torch.save({"a": Attack(path.with_name("owned"))}, path), id="code"),
        pytest.param(
            lambda path: path.write_bytes(pickle.dumps(Attack(path.with_name("owned")), protocol=2)), id="pickle"
        ),
    ],
)
def test_foreign_file_is_refused_and_not_run(content, tmp_path):
    path = tmp_path / "foreign.pth"
    content(path)
    with pytest.raises(UserError, match=r"features\.weights=.*foreign\.pth.* is not a state dict") as caught:
        Inception(str(path)).prepare()
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "owned").exists()


def test_broken_cache_says_to_delete_it(empty_hub):
    empty_hub.parent.mkdir(parents=True)
    empty_hub.write_text("half a download")
    with pytest.raises(UserError, match=rf"{empty_hub}.*delete it"):
        Inception().prepare()


def test_offline_says_what_to_do(empty_hub, monkeypatch):
    with socket.socket() as closed:  # bound, not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        serve_from(closed.getsockname()[1], monkeypatch)
        expected = rf"not cached at {empty_hub} and could not be downloaded \(.*refused.*\): give features\.weights="
        with pytest.raises(UserError, match=expected):
            Inception().prepare()


def test_silent_network_does_not_hang(empty_hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, answers nothing
        serve_from(silent.getsockname()[1], monkeypatch)
        start = time.monotonic()
        with pytest.raises(UserError, match="could not be downloaded"):
            Inception().prepare()
    assert time.monotonic() - start < 30
    assert socket.getdefaulttimeout() is None


@pytest.mark.slow
def test_an_image_has_the_same_bits_in_any_company(inception_weights):
    extractor = Inception(str(inception_weights))
    extractor.prepare()
    images = example_images(3, seed=3)
    together = extractor(images)
    for index in ([0], [2, 1]):
        apart = extractor(images[index].contiguous(memory_format=torch.channels_last))
        for name, output in apart.items():
            assert torch.equal(output, together[name][index]), name
