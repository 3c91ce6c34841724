"""What may be built of a stored config."""

import pytest
import yaml
from omegaconf import OmegaConf

from langevin.assembly.components import MODEL, SAMPLING
from langevin.config.stored import PLACES, StoredError, forget_places, read_stored, refuse_untrusted, targets, walk
from langevin.config.validate import CONF, groups


def test_the_list_is_that_of_conf():
    assert "langevin.diffusion.schedules.linear.Linear" in targets("schedule")
    assert "langevin.samplers.ddim.DDIM" not in targets("schedule")
    assert "langevin.conditions.vector.Vector" in targets("conditions"), "at any depth"
    assert targets("no_such_group") == frozenset()
    assert all(target.startswith("langevin.") for path in CONF.iterdir() for target in targets(path.name) - TORCH)


TORCH = {"torch.optim.Adam", "torch.optim.AdamW", "torch.optim.SGD"}


def test_a_resolved_config_is_read_as_it_was_written():
    process = {"_target_": "langevin.diffusion.process.GaussianProcess"}
    cfg = OmegaConf.create({"a": 1.0e-4, "b": "${c}", "c": [1, None, "2"], "d": {"e": "1e-3"}, "process": process})
    OmegaConf.resolve(cfg)
    assert read_stored(OmegaConf.to_yaml(cfg)) == cfg


@pytest.mark.parametrize("text", ["a: ${oc.env:HOME}", "${b}: 1", "a: [[x${.y}]]", "a: &x 1\nb: *x", "- 1", 7, "a: ["])
def test_anything_else_is_refused(text):
    with pytest.raises(StoredError):
        read_stored(text)


@pytest.mark.parametrize(
    ("trust", "fits"), [("a", True), ("a.b", True), ("a.b.C", True), ("a.b.", False), ("a.bc", False)]
)
def test_trust_is_of_whole_names(trust, fits):
    cfg = OmegaConf.create({"schedule": {"_target_": "a.b.C"}})
    if fits:
        refuse_untrusted(cfg, ["schedule", "sampler"], [trust])
    else:
        with pytest.raises(StoredError, match=r"'a\.b\.C' at schedule\._target_"):
            refuse_untrusted(cfg, ["schedule"], [trust])


def test_every_option_of_a_place_is_known():
    """Of the groups that may come out of a stored run."""
    found = {
        (group, place.rpartition(".")[2])
        for group in groups()
        if group in (*MODEL, *SAMPLING, "data", "loader")
        for path in (CONF / group).glob("*.yaml")
        for place, _ in walk(yaml.safe_load(path.read_text()))
        if place.endswith(("_dir", "folder"))
    }
    found |= {
        ("codec", "run"),
        ("init", "checkpoint"),
        ("auxiliaries", "run"),
    }  # where a run is read, which its checkpoint does not need
    assert found == {(group, name) for group, names in PLACES.items() for name in names}


def test_places_are_forgotten_in_every_part_of_a_group():
    cfg = read_stored("codec: {run: a, weights: b}\nauxiliaries: {one: {run: c, weights: d}, two: {tap: e}, three: f}")
    forget_places(cfg)
    parts = {"one": {"run": None, "weights": "d"}, "two": {"tap": "e"}, "three": "f"}
    assert cfg == {"codec": {"run": None, "weights": "b"}, "auxiliaries": parts}
