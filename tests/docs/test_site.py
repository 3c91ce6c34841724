"""The site of documentation is built without a warning and loads nothing from the network; its notebook works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import ROOT
from pages import shortened_python

from langevin.config.describe import part, part_names
from langevin.config.validate import groups

NOTEBOOK = ROOT / "docs/notebooks/first_samples.ipynb"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    arguments = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_pages_load_nothing_from_the_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(https?:[^\s\">]+)", page.read_text())
        assert loaded == [], page


@pytest.mark.slow
def test_every_option_has_its_place_in_the_reference(site):
    for group in groups():
        text = (site / f"reference/config/{group}.html").read_text()
        for name in part_names(group):
            assert f'id="{name}"' in text, (group, name)
            assert [each.path for each in part(group, name).options if f">{each.path}<" not in text] == []


@pytest.mark.slow
def test_the_notebook_works(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.syspath_prepend(str(NOTEBOOK.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from execute import run

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    stored = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    for cell in notebook.cells:
        cell.source = re.sub(r"steps in \[.*\]", "steps in [1, 2]", shortened_python(cell.source))
    done = run(notebook, tmp_path)
    outputs = [cell.outputs for cell in done.cells if cell.cell_type == "code"]
    assert [set(map(kind, cell)) for cell in outputs] == [set(map(kind, cell)) for cell in stored]
    assert sum("image/png" in each.get("data", {}) for cell in outputs for each in cell) == 4
    assert (tmp_path / "outputs/from_a_notebook/samples.npz").is_file()


def kind(output) -> tuple[str, ...]:
    """What an output of a notebook is: its type, and the formats that it has."""
    return (output.output_type, *sorted(output.get("data", {})))


def test_the_stored_notebook_is_light():
    assert Path(NOTEBOOK).stat().st_size < 300_000
