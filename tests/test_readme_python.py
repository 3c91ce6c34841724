"""The Python code that the documentation shows works as it is written."""

import inspect
import re

import pytest
from helpers.commands import ROOT, TINY

import langevin

pytestmark = pytest.mark.integration

(README,) = re.findall(
    r"^## Python$.*?^```python$(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
)
IN_DOCSTRING = re.findall(r"::\n\n((?:    .*\n|\n)+)", langevin.__doc__)
SHORT = [*TINY, "metrics=[]"]


def test_a_run_is_trained_sampled_and_evaluated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert README.count('"name=quickstart"') == 1
    short = README.replace('"name=quickstart"', f'"name=quickstart", *{SHORT}')
    names = {}
    exec(short.replace("num_samples=500", "num_samples=20"), names)
    assert (names["run"].step, names["samples"].samples.shape) == (2, (16, 8, 8, 1))
    assert names["samples"].labels.tolist() == [3, 7] * 8
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["grid.png", "samples.npz"]
    # The docstring's is of the same run.
    exec(inspect.cleandoc(IN_DOCSTRING[0]).replace("num_samples=500", "num_samples=20"), names)
    assert names["samples"].record["samples"]["guidance"]["scale"] == 2.0


def test_parts_make_samples_without_a_config():
    names = {}
    exec(inspect.cleandoc(IN_DOCSTRING[1]), names)
    assert names["x"].shape == (4, 3, 32, 32)
    assert names["x"].std() > 0
