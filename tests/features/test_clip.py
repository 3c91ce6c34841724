"""CLIP, by a small one of its kind: torch-fidelity reads the architecture from the weights."""

import hashlib
import socket
import warnings
from typing import get_args, get_type_hints

import pytest
import torch
from helpers.images import example_images
from torch import nn
from torch_fidelity import feature_extractor_clip

from langevin.errors import UserError
from langevin.features import weights
from langevin.features.clip import CLIP

SIDE = 16


class Small(nn.Module):
    """The image half of a CLIP and what of the other half its files are known by."""

    def __init__(self):
        super().__init__()
        self.visual = feature_extractor_clip.VisionTransformer(
            input_resolution=SIDE, patch_size=8, width=64, layers=2, heads=1, output_dim=12
        )
        self.text_projection = nn.Parameter(torch.randn(7, 12))
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.visual(x)


@pytest.fixture(scope="module")
def small():
    """Its weights have the few digits that OpenAI's do, on whose loss on the way the comparison does not rest."""
    torch.manual_seed(0)
    network = Small().eval().requires_grad_(False)
    for weight in network.parameters():
        weight.copy_((weight + 0.1 * torch.randn_like(weight)).half().float())
    return network


@pytest.fixture(scope="module")
def file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "small.pt"
    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(small, torch.zeros(1, 3, SIDE, SIDE)).save(str(path))
    return path


def resized(images):
    """TensorFlow 1's bilinear: pixel i lies at i times the ratio of the sides."""

    def along(x, axis):
        size = x.shape[axis]
        place = torch.arange(SIDE, dtype=torch.float64) * size / SIDE
        low = place.floor().long()
        shape = [1] * x.ndim
        shape[axis] = SIDE
        part = (place - low).reshape(shape)
        return x.index_select(axis, low) * (1 - part) + x.index_select(axis, (low + 1).clamp(max=size - 1)) * part

    return along(along(images.double(), 2), 3)


def test_outputs_are_its_embedding_of_resized_and_normalized_images(small, file):
    extractor = CLIP(weights=str(file))
    assert extractor.name == "clip"
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    extractor.prepare()
    assert torch.equal(torch.rand(3), expected), "it leaves the random numbers alone"

    images = example_images(4, size=24)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    x = (resized(images) / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    theirs = small(x.float())
    assert theirs.std(0).mean() > 0.1
    torch.testing.assert_close(extractor(images)["features"], theirs, rtol=1e-4, atol=1e-4)

    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert extractor.record() == {
        "extractor": f"clip-{sha256[:8]}",
        "sha256": sha256,
        "preprocessing": "RGB, bilinear as TensorFlow 1 does (corners at the origin, no antialiasing) to 16 x 16, "
        "normalized as CLIP's images",
        "official": False,
        "outputs": {"features": 12},
    }


def test_openais_files_are_named_by_their_model(file, monkeypatch):
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(feature_extractor_clip.MODEL_METADATA, "clip-rn50", {"hash": sha256, "filename": "RN50"})
    extractor = CLIP("clip-rn50", str(file))
    extractor.prepare()
    assert extractor.name == f"clip-rn50-{sha256[:8]}"
    with pytest.raises(UserError, match=r"^features\.model=clip-vit-b-32: these .* of clip-rn50; name"):
        CLIP("clip-vit-b-32", str(file)).prepare()


def test_cached_weights_are_used_without_a_download(file, hub, monkeypatch):
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(feature_extractor_clip.MODEL_METADATA, "clip-rn50", {"hash": sha256, "filename": "RN50"})
    monkeypatch.setitem(feature_extractor_clip.MODEL_URLS, "clip-rn50", "http://127.0.0.1:1/RN50.pt")
    (hub / "checkpoints").mkdir(parents=True)
    (hub / "checkpoints" / f"clip-rn50-{sha256}.pt").symlink_to(file)
    extractor = CLIP("clip-rn50")
    extractor.prepare()
    assert extractor.name == f"clip-rn50-{sha256[:8]}"


def test_offline_says_what_to_do(hub, monkeypatch):
    monkeypatch.setattr(weights, "CONNECTION_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, answers nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/RN50.pt"
        monkeypatch.setitem(feature_extractor_clip.MODEL_URLS, "clip-rn50", url)
        path = hub / "checkpoints" / f"clip-rn50-{feature_extractor_clip.MODEL_METADATA['clip-rn50']['hash']}.pt"
        expected = (
            rf"^features\.weights=null: .* cached at {path} and could not be downloaded \(timed out\): give .*{url}"
        )
        with pytest.raises(UserError, match=expected):
            CLIP("clip-rn50").prepare()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda path: path.write_text("not weights"), id="text"),
        pytest.param(lambda path: torch.save(nn.Linear(2, 2).state_dict(), path), id="state dict"),
        pytest.param(lambda path: torch.jit.script(nn.Linear(2, 2)).save(str(path)), id="other network"),
    ],
)
def test_foreign_file_is_refused(content, tmp_path):
    path = tmp_path / "foreign.pt"
    with warnings.catch_warnings(action="ignore"):
        content(path)
    with pytest.raises(
        UserError, match=r"^features\.weights=.*foreign\.pt: is not a TorchScript archive of CLIP"
    ) as caught:
        CLIP(weights=str(path)).prepare()
    assert len(str(caught.value).splitlines()) == 1


def test_models_are_those_of_torch_fidelity():
    assert set(get_args(get_type_hints(CLIP.__init__)["model"])) == set(feature_extractor_clip.MODEL_METADATA)
