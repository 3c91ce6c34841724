import functools
import hashlib
import re
from dataclasses import replace

import pytest
import torch
from helpers.backbones import random_state, save_backbone
from helpers.images import example_images
from safetensors.torch import save_file
from torchmetrics.functional.image.lpips import _LPIPS

from langevin.errors import OptionError
from langevin.images import from_uint8
from langevin.perceptual.lpips import BACKBONES, LPIPSDistance
from langevin.spec import DataSpec

NETS = ("vgg", "alex", "squeeze")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The distance by each network, with random weights."""
    folder = tmp_path_factory.mktemp("backbones")
    return functools.cache(lambda net: LPIPSDistance(net, str(save_backbone(folder / f"{net}.pth", net))))


def peer_of(net):
    """Torchmetrics' distance, with the same weights."""
    peer = _LPIPS(pretrained=True, net=net, pnet_rand=True)
    own = random_state(net)
    # Its layers keep torchvision's numbers, behind the name of a slice.
    renamed = {name: own[re.sub(r"^slices?\.?\d\.", "features.", name)] for name in peer.net.state_dict()}
    peer.net.load_state_dict(renamed)
    return peer


def pairs(size=40, channels=3):
    target = from_uint8(example_images(4, size, channels))
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    x = (target + torch.tensor([0.05, 0.2, 0.5, 1.0])[:, None, None, None] * noise).clamp(-1, 1)
    return x, target


@pytest.mark.parametrize("net", [pytest.param("vgg", marks=pytest.mark.slow), "alex", "squeeze"])
def test_values_and_gradients_equal_torchmetrics(net, made):
    distance, peer = made(net), peer_of(net)
    x, target = pairs()
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = distance(mine, target), peer(theirs, target).flatten()
    assert found.shape == (4,)
    assert expected.min() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    found.sum().backward()
    expected.sum().backward()
    scale = theirs.grad.abs().max()
    torch.testing.assert_close(mine.grad / scale, theirs.grad / scale, rtol=0, atol=1e-5)


def test_grey_images_count_as_three_equal_channels(made):
    distance, peer = made("squeeze"), peer_of("squeeze")
    x, target = pairs(channels=1)
    expected = peer(x.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1)).flatten()
    torch.testing.assert_close(distance(x, target), expected, rtol=1e-6, atol=1e-6)


def test_it_is_zero_where_images_are_equal(made):
    target = pairs()[1]
    assert made("squeeze")(target, target).abs().max() == 0


def test_it_is_frozen_and_draws_no_random_numbers_of_the_run(tmp_path):
    path = save_backbone(tmp_path / "weights.pth", "squeeze")
    torch.manual_seed(0)
    distance = LPIPSDistance("squeeze", str(path)).train()
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))
    assert not any(module.training for module in distance.modules())
    assert not any(weight.requires_grad for weight in distance.parameters())
    target = pairs()[1].requires_grad_()
    assert not distance(target.detach(), target).requires_grad, "of x alone"


def test_half_precision_normalizes_in_full(made):
    distance = made("squeeze")
    x, target = pairs()
    with torch.autocast("cpu", torch.bfloat16):
        found = distance(x, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, distance(x, target), rtol=0.05, atol=1e-3)


def test_the_digest_is_of_the_weights_whatever_their_file(made, tmp_path):
    distance = made("alex")
    save_file(random_state("alex"), tmp_path / "alex.safetensors")
    same = LPIPSDistance("alex", str(tmp_path / "alex.safetensors"))
    other = LPIPSDistance("alex", str(save_backbone(tmp_path / "other.pth", "alex", seed=1)))
    record = distance.record()
    assert record["perceptual"]["class"] == "langevin.perceptual.lpips.LPIPSDistance"
    assert len(record["perceptual"]["weights"]) == 64
    assert record == same.record() != other.record()


def test_the_published_file_is_known_by_its_sha256(tmp_path, monkeypatch):
    path = save_backbone(tmp_path / "weights.pth", "squeeze")
    assert not LPIPSDistance("squeeze", str(path)).official
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    published = BACKBONES["squeeze"]._replace(file=f"squeezenet1_1-{digest[:8]}.pth")
    monkeypatch.setitem(BACKBONES, "squeeze", published)
    assert LPIPSDistance("squeeze", str(path)).official


def test_weights_are_taken_from_torch_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(OptionError, match=rf"weights is null, and there is no {tmp_path}/checkpoints/squeezenet1_1-"):
        LPIPSDistance("squeeze")
    (tmp_path / "checkpoints").mkdir()
    save_backbone(tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth", "squeeze")
    assert (
        LPIPSDistance("squeeze").record()
        == LPIPSDistance("squeeze", str(tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")).record()
    )


def test_other_files_are_refused_with_the_name_of_the_right_one(tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    save_backbone(tmp_path / "alex.pth", "alex")
    wanted = r"allowed: the path of torchvision's weights of VGG16, the file vgg16-397923af\.pth.*models\.html"
    for name, reason in (
        ("absent.pth", "no such file"),
        ("text.pth", "cannot be read"),
        ("alex.pth", "another network"),
    ):
        with pytest.raises(OptionError, match=wanted) as error:
            LPIPSDistance("vgg", str(tmp_path / name))
        assert reason in str(error.value)
        assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("net", NETS)
def test_the_smallest_image_is_the_smallest_that_works(net, made):
    distance = made(net)
    least = distance.backbone.least
    spec = DataSpec.of_images(3, least, None)
    distance.check(spec)
    assert distance(*pairs(least)).isfinite().all()
    with pytest.raises(OptionError, match=rf"^net is {net}, and the images are of .* vgg from 16, alex from 31"):
        distance.check(replace(spec, shape=(3, least, least - 1)))
    with pytest.raises((RuntimeError, AssertionError)):  # no pixel is left
        assert distance(*pairs(least - 1)).isfinite().all()
    for shape in ((4, 64, 64), (2,)):
        with pytest.raises(OptionError, match="images of 1 or 3 channels"):
            distance.check(replace(spec, shape=shape))
