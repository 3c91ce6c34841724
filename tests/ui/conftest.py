"""Runs to explore."""

import dataclasses
import json

import pytest
from helpers.commands import TINY, composed
from helpers.saved import save_untrained

import langevin
from langevin.spec import DataSpec

IMAGES = DataSpec.of_images(1, 8, 10)
POINTS = DataSpec((2,), None, "langevin.modalities.vector.VectorModality")
NAMES = [f"<b>{each}</b>" for each in ("zero", "one", "two", *range(3, 10))]


def save(folder, *overrides, spec=IMAGES, names=None):
    (folder / "checkpoints").mkdir(parents=True)
    save_untrained(folder / "checkpoints" / "last.ckpt", composed("train", *overrides)[0], spec)
    if names is not None:
        split = {"number": len(names), "class_names": names, "sha256": ""}
        (folder / "data.json").write_text(json.dumps({"splits": {"train": split}}))
    return folder


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """Of classes with names; its samples are of 2 steps."""
    return save(tmp_path_factory.mktemp("ui") / "labelled", *TINY, "conditions=[class_label]", names=NAMES)


@pytest.fixture(scope="session")
def own_guidance(tmp_path_factory):
    """Of classes without names, on a schedule without steps, and guided."""
    guided = ("guidance=classifier_free", "guidance.scale=3", "guidance.rescale=0.5")
    folder = tmp_path_factory.mktemp("ui") / "guided"
    return save(folder, *TINY, "conditions=[class_label]", "formulation=edm", *guided)


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """Without classes."""
    return langevin.load(save(tmp_path_factory.mktemp("ui") / "plain", *TINY))


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """Of captions."""
    encoder = ("conditions=[text]", "captions=templates", "text=learned", "text.width=16", "text.depth=1")
    spec = dataclasses.replace(IMAGES, vocabulary=("a", "three"))
    folder = tmp_path_factory.mktemp("ui") / "texts"
    return langevin.load(save(folder, *TINY, *encoder, "model.cross_attention=true", spec=spec))


@pytest.fixture(scope="session")
def points(tmp_path_factory):
    """Of vectors."""
    folder = tmp_path_factory.mktemp("ui") / "points"
    return langevin.load(save(folder, "data=toy", "model=mlp", "sampler.steps=2", spec=POINTS))
