import inspect
import subprocess
import sys

import pytest
import torch
from helpers.commands import ROOT

from langevin.config.signature import TargetError, signature
from langevin.config.types import describe
from langevin.training.ema import StepEMA


def write(folder, name, source):
    (folder / f"{name}.py").write_text(source)


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder whose Python files can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_reads_names_types_and_defaults_from_the_source(modules):
    write(
        modules,
        "sig_source",
        "class Part:\n"
        "    def __init__(self, network, /, steps: int, *rest, scale: float = 1.0, name: 'str | None'): ...\n"
        "def make(a: int, b: bool = True): ...\n"
        "raise RuntimeError('imported')\n",
    )
    fields = signature("sig_source.Part")
    assert {name: field.required for name, field in fields.items()} == {
        "network": True,
        "steps": True,
        "scale": False,
        "name": True,
    }
    assert fields["network"].annotation is None
    assert [describe(fields[name].annotation) for name in ("steps", "scale", "name")] == [
        "a whole number",
        "a number",
        "a text or null",
    ]
    assert {name: field.required for name, field in signature("sig_source.make").items()} == {"a": True, "b": False}
    assert "sig_source" not in sys.modules


def test_imports_where_the_constructor_is_inherited_or_comes_from_elsewhere(modules):
    write(modules, "sig_base", "class Base:\n    def __init__(self, steps: int = 3): ...\n")
    write(modules, "sig_child", "from sig_base import Base\nclass Child(Base): ...\n")
    for target in ("sig_child.Child", "sig_child.Base"):
        assert list(signature(target)) == ["steps"]
        assert not signature(target)["steps"].required


def test_an_optimizer_of_torch():
    fields = signature("torch.optim.AdamW")
    assert list(fields) == list(inspect.signature(torch.optim.AdamW).parameters)
    assert fields["params"].required
    assert not fields["lr"].required
    assert "a number" in describe(fields["lr"].annotation)


def test_own_class_is_as_imported():
    assert list(signature("langevin.training.ema.StepEMA")) == list(inspect.signature(StepEMA).parameters)


def test_takes_any_keyword(modules):
    write(modules, "sig_any", "class Any:\n    def __init__(self, **options): ...\n")
    assert signature("sig_any.Any") is None


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("DDIM", "'DDIM' is not the full path of a class, such as langevin.samplers.ddim.DDIM"),
        ("langevin.samplers.ddim.DDIMM", "module 'langevin.samplers.ddim' has no class or function 'DDIMM'"),
        ("langevin.samplers.dim.DDIM", "module 'langevin.samplers.dim' does not exist"),
        ("langevin.sampler.ddim.DDIM", "module 'langevin.sampler' does not exist"),
        ("no_such_package.Thing", "module 'no_such_package' does not exist"),
        ("langevin.errors.__doc__", "has no class or function '__doc__'"),
    ],
)
def test_a_target_that_is_not_there(target, words):
    with pytest.raises(TargetError) as caught:
        signature(target)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_dependency\nclass Part: ...\n", "ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("raise OSError('no licence')\nclass Part: ...\n", "OSError: no licence"),
    ],
)
def test_a_module_that_fails_shows_the_cause(modules, source, cause):
    name = f"sig_failing_{len(source)}"
    write(modules, name, source)
    with pytest.raises(TargetError) as caught:
        signature(f"{name}.Part")
    assert str(caught.value) == f"importing '{name}' failed: {cause}"


@pytest.mark.slow
def test_checking_the_default_config_imports_no_lightning():
    code = (
        "import sys\n"
        "from hydra import compose, initialize_config_dir\n"
        "from langevin.assembly.check import mistakes_in\n"
        "from langevin.config.validate import CONF\n"
        "with initialize_config_dir(str(CONF), version_base='1.3'):\n"
        "    good, bad = compose('train'), compose('train', ['sampler.steps=0'])\n"
        "assert mistakes_in(good) == []\n"
        "assert len(mistakes_in(bad)) == 1\n"
        "print(sorted({'lightning', 'torchvision', 'sklearn'}.intersection(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
