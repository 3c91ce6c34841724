"""A user's own network, as a TorchScript file or as Python."""

import hashlib
import pickle
import sys
import types
import warnings

import pytest
import torch
from helpers.attack import Attack
from helpers.images import example_images
from torch import Tensor, nn

from langevin.errors import UserError
from langevin.features.module import Module
from langevin.features.torchscript import TorchScript


class Moments(nn.Module):
    """Mean and mean square of each channel, mixed; in training it does something else."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(30.0).reshape(6, 5) / 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() / 255
        moments = torch.cat([x.mean((2, 3)), x.square().mean((2, 3))], dim=1) @ self.weight
        return moments * 100 if self.training else moments


class Like2015(nn.Module):
    """Called as NVIDIA's inception-2015-12-05.pt is."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        means = x.float().mean((2, 3))
        return means if return_features else means.softmax(1)[:, :2]


class Both(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        means = x.double().mean((2, 3))
        return {"features": means, "logits": means[:, :2], "depth": means}


def save(network, path, frozen=False):
    with warnings.catch_warnings(action="ignore"):
        script = torch.jit.script(network)
        (torch.jit.freeze(script.eval()) if frozen else script).save(str(path))
    return path


def expected(images):
    x = images.expand(-1, 3, -1, -1).double() / 255
    return (torch.cat([x.mean((2, 3)), (x**2).mean((2, 3))], 1) @ Moments().weight.double()).float()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Put a module's source where it can be imported, until the test ends."""
    before = set(sys.modules)

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path / f"{name}.py"

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.mark.parametrize("channels", [1, 3])
def test_torchscript(tmp_path, channels):
    path = save(Moments(), tmp_path / "my net.pt")
    extractor = TorchScript(str(path))
    assert extractor.name == "torchscript_my net"
    extractor.prepare()
    extractor.check((channels, 20, 24), "samples=there")
    images = example_images(4, channels=channels)[:, :, :20, :24]
    torch.testing.assert_close(extractor(images)["features"], expected(images))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert extractor.record() == {
        "extractor": f"torchscript_my net-{sha256[:8]}",
        "sha256": sha256,
        "preprocessing": "RGB, and what the TorchScript file does",
        "official": False,
        "outputs": {"features": 5},
    }


def test_torchscript_that_is_frozen(tmp_path):
    extractor = TorchScript(str(save(Moments(), tmp_path / "net.pt", frozen=True)))
    extractor.prepare()
    extractor.check((3, 32, 32), "samples=there")
    torch.testing.assert_close(extractor(example_images(4))["features"], expected(example_images(4)))


@pytest.mark.parametrize(("option", "width"), [(True, 3), (False, 2)])
def test_torchscript_is_asked_for_features(tmp_path, option, width):
    extractor = TorchScript(str(save(Like2015(), tmp_path / "net.pt")), return_features=option)
    extractor.prepare()
    assert extractor.sizes == {"features": width}
    means = example_images(4).float().mean((2, 3))
    expected = means if option else means.softmax(1)[:, :2]
    torch.testing.assert_close(extractor(example_images(4))["features"], expected)


def test_torchscript_of_two_outputs(tmp_path):
    extractor = TorchScript(str(save(Both(), tmp_path / "net.pt")))
    extractor.prepare()
    assert extractor.sizes == {"features": 3, "logits": 2}
    outputs = extractor(example_images(4))
    assert {key: (value.dtype, tuple(value.shape)) for key, value in outputs.items()} == {
        "features": (torch.float32, (4, 3)),
        "logits": (torch.float32, (4, 2)),
    }


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda path: path.write_text("not a network"), id="text"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: torch.save(nn.Linear(2, 2).state_dict(), path), id="state dict"),
        pytest.param(lambda path: path.write_bytes(pickle.dumps(Attack(path.with_name("owned")))), id="pickle"),
    ],
)
def test_what_is_no_torchscript_is_refused_and_not_run(tmp_path, content):
    content(tmp_path / "foreign.pt")
    with pytest.raises(UserError, match=r"^features\.path=.*foreign\.pt: is not TorchScript \(") as caught:
        TorchScript(str(tmp_path / "foreign.pt")).prepare()
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "owned").exists()


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"^features\.path=nowhere\.pt: cannot be read \(No such file"):
        TorchScript("nowhere.pt").prepare()


MOMENTS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(30.0).reshape(6, 5) / 10)

    def forward(self, x):
        x = x.float() / 255
        moments = torch.cat([x.mean((2, 3)), x.square().mean((2, 3))], dim=1) @ self.weight
        return {"features": moments * 100 if self.training else moments}

def plain():
    net = Net().eval()
    return lambda x: net(x)["features"]

def drawn():
    torch.rand(3)
    return Net()
"""


@pytest.mark.parametrize("target", ["Net", "plain"])
def test_module(write, target):
    source = write("own_moments", MOMENTS)
    extractor = Module(f"own_moments:{target}")
    assert extractor.name == f"module_{target}"
    extractor.prepare()
    extractor.check((1, 32, 32), "samples=there")
    torch.testing.assert_close(extractor(example_images(4))["features"], expected(example_images(4)))
    weight = Moments().weight.detach().numpy().tobytes()
    of_weights = hashlib.sha256(b"weight torch.float32 (6, 5)\n" + weight).hexdigest()
    sha256 = of_weights if target == "Net" else hashlib.sha256(source.read_bytes()).hexdigest()
    assert (extractor.sha256, extractor.name) == (sha256, f"module_{target}-{sha256[:8]}")
    assert extractor.record()["outputs"] == {"features": 5}
    assert extractor.official is False


def test_module_leaves_the_random_numbers_alone(write):
    write("own_drawn", MOMENTS)
    torch.manual_seed(1)
    before = torch.rand(3)
    torch.manual_seed(1)
    Module("own_drawn:drawn").prepare()
    assert torch.equal(torch.rand(3), before)


@pytest.mark.parametrize("target", ["own_moments.Net", ":Net", "own_moments:", "own_moments:a.b", "own_moments:a b"])
def test_a_target_of_another_form_is_refused(target):
    with pytest.raises(UserError, match=rf"^target is {target}; allowed: of the form package\.module:callable$"):
        Module(target)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere_at_all:f", "importing nowhere_at_all failed \\(ModuleNotFoundError"),
        ("own_wrong:g", "own_wrong has no function or class g"),
        ("own_wrong:NUMBER", "own_wrong has no function or class NUMBER"),
        ("own_wrong:asks", "called without arguments, it fails \\(TypeError"),
        ("own_wrong:number", "gives a int, which cannot be called"),
        ("own_wrong:fails", "given uint8 images \\(2, 3, 64, 64\\), the network fails \\(ZeroDivisionError"),
        ("own_wrong:flat", "gives as features a tensor of shape \\(2,\\)"),
        ("own_wrong:one", "gives as features a tensor of shape \\(1, 3\\)"),
        ("own_wrong:whole", "gives as features numbers of type torch.int64"),
        ("own_wrong:endless", "gives as features numbers that are not finite"),
        ("own_wrong:listed", "gives as features no tensor but a list"),
        ("own_wrong:unnamed", "gives \\['embedding'\\]; allowed: features"),
        ("own_wrong:logits", "gives as logits a tensor of shape \\(2,\\)"),
        ("math:sqrt", "called without arguments"),
    ],
)
def test_what_is_no_network_is_refused(write, target, message):
    write(
        "own_wrong",
        """
NUMBER = 3
def asks(x): ...
def number(): return 3
def fails(): return lambda x: 1 / 0
def flat(): return lambda x: x.float().mean((1, 2, 3))
def one(): return lambda x: x.float().mean((0, 2, 3))[None]
def whole(): return lambda x: x.long().sum((2, 3))
def endless(): return lambda x: x.float().mean((2, 3)) / 0
def listed(): return lambda x: [1.0]
def unnamed(): return lambda x: {"embedding": x}
def logits(): return lambda x: {"features": x.float().mean((2, 3)), "logits": x.float().mean((1, 2, 3))}
""",
    )
    with pytest.raises(UserError, match=rf"^features\.target={target}: .*{message}"):
        Module(target).prepare()


def test_a_network_that_fails_is_tried_again(write):
    write("own_failing", "def fails(): return lambda x: 1 / 0")
    extractor = Module("own_failing:fails")
    for _ in "ab":
        with pytest.raises(UserError, match="ZeroDivisionError"):
            extractor.prepare()


def test_a_network_whose_width_depends_on_the_image_is_refused(write):
    write("own_wide", "def wide(): return lambda x: x.float().flatten(1)")
    extractor = Module("own_wide:wide")
    extractor.prepare()
    extractor.check((3, 64, 64), "samples=there")
    with pytest.raises(UserError, match=r"own_wide:wide: gives \{'features': 192\} for the images of samples=there"):
        extractor.check((3, 8, 8), "samples=there")


def test_without_weights_and_source_there_is_no_name(monkeypatch):
    module = types.ModuleType("own_nowhere")
    module.make = lambda: lambda x: x.float().mean((2, 3))
    monkeypatch.setitem(sys.modules, "own_nowhere", module)
    with pytest.raises(UserError, match="neither weights nor a source file name it"):
        Module("own_nowhere:make").prepare()
