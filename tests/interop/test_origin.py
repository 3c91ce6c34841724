"""What is kept of the files beside a model, which are a stranger's."""

import json
import os

import pytest

from langevin.interop.origin import FIELD, LONGEST, origin_of


def test_a_card(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nlicense: mit\nbase_model: a/b\nlicense_link: {a: 1}\n---\nlicense: other\n"
    )
    assert origin_of(tmp_path) == {"license": "mit", "base_model": "a/b"}


@pytest.mark.parametrize(
    ("name", "kept"), [("CompVis/sd-1", True), ("/home/me/sd", False), ("../sd", False), (3, False)]
)
def test_a_name(name, kept, tmp_path):
    """That of a hub, no place on a machine."""
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": name}))
    assert origin_of(tmp_path) == ({"name": name} if kept else {})


def test_the_inner_folder_comes_first(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: own\n---\n")
    assert origin_of(tmp_path / "vae") == {"license": "mit"}, "the folder around it may be any"
    (tmp_path / "model_index.json").write_text("{}")
    assert origin_of(tmp_path / "vae") == {"license": "mit", "license_name": "own"}


@pytest.mark.parametrize(
    "card",
    [
        b"",
        b"# A model\n",
        b"---\nlicense: mit\n",
        b"---\n- mit\n---\n",
        b"---\nlicense: [\n---\n",
        b"---\nlicense: 3\nbase_model: [1, {}]\n---\n",
        b"---\nlicense: !!python/object/apply:os.mkdir [executed]\n---\n",
        b"---\nlicense: " + b"x" * (FIELD + 1) + b"\n---\n",
        b"---\nlicense: mit\n---\n" + b"x" * LONGEST,
        b"---\nlicense: \xff\n---\n",
        b"---\nlicense: " + b"[" * 1500 + b"\n---\n",
        b"---\na: " + b"9" * 5000 + b"\nlicense: 1e999\n---\n",
    ],
    ids=range(12),
)
def test_a_card_that_says_nothing(card, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_bytes(card)
    (tmp_path / "config.json").write_bytes(card)
    assert origin_of(tmp_path) == {}
    assert not (tmp_path / "executed").exists()


def test_what_is_no_file(tmp_path):
    """A pipe would be waited for without end."""
    os.mkfifo(tmp_path / "README.md")
    (tmp_path / "LICENSE").mkdir()
    assert origin_of(tmp_path) == {}


def test_a_licence_beside_a_file(tmp_path):
    """It may be anything's, unless a card says that a model lies there."""
    (tmp_path / "LICENSE").write_text("text")
    assert origin_of(tmp_path / "model.ckpt") == {}
    (tmp_path / "README.md").write_text("---\nlicense: other\n---\n")
    assert origin_of(tmp_path / "model.ckpt") == {"license": "other", "license_text": "text"}
