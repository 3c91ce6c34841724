"""Runs and records of before a rename, of which some names are written down here as they were."""

import importlib

import pytest
import yaml
from helpers.commands import composed
from omegaconf import OmegaConf

from langevin.config.identity import automatic_name, differences, digest, identity
from langevin.config.migration import CLASSES, KEYS, TEXTS, current, former, migrated
from langevin.config.signature import TargetError, signature
from langevin.config.stored import read_stored, targets
from langevin.config.validate import groups
from langevin.evaluation.protocol import of_value

OLD = {
    "grid": {"_target_": "langevin.samplers.grid.Karras", "rho": 7.0},
    "schedule": {"_target_": "langevin.diffusion.schedules.edm.EDM"},
    "callbacks": {"samples": {"grid": "langevin.samplers.ddim.DDIM"}},
    "condition": {"_target_": "langevin.networks.condition.ClassLabel", "dropout": 0.2},
    "mine": [{"grid": 1}, "langevin.diffusion.weighting.EDM"],
}
NEW = {
    "timestep_spacing": {"_target_": "langevin.samplers.timestep_spacing.Karras", "rho": 7.0},
    "schedule": {"_target_": "langevin.diffusion.schedules.edm.EDMSchedule"},
    "callbacks": {"samples": {"grid": "langevin.samplers.ddim.DDIM"}},
    "conditions": {"class_label": {"_target_": "langevin.conditions.class_label.ClassLabel", "dropout": 0.2}},
    "process": {"_target_": "langevin.diffusion.process.GaussianProcess"},
    "codec": {"_target_": "langevin.codecs.identity.Identity"},
    "task": {"_target_": "langevin.assembly.tasks.DenoisingTask"},
    "mine": [{"grid": 1}, "langevin.diffusion.weighting.EDMWeighting"],
}
# The names that commit 702d778, before the first rename, gave to the runs of these commands.
NAMED = {
    (): "digits-unet_small-linear-8e33553b",
    ("conditions=[class_label]",): "digits-unet_small-linear-895519e3",
    ("experiment=digits_ddpm",): "digits_ddpm-digits-unet_small-linear-77c4e191",  # was experiment=digits then
    ("task=classifier",): "digits-half_unet-linear-1329d7c8",
    ("conditions=[class_label,vector]", "conditions.vector.size=3"): "digits-unet_small-linear-bb79485f",
    ("formulation=edm",): "digits-unet_small-edm-6f0ce512",
    ("formulation=flow",): "digits-unet_small-flow-a9d6a923",
    ("schedule=sigmoid", "weighting=vlb"): "digits-unet_small-sigmoid-7c02e07d",
    ("time_sampler=uniform", "schedule=quadratic", "timestep_spacing=karras"): "digits-unet_small-quadratic-1a8ec41a",
}


def test_every_new_name_is_there_and_no_old_one():
    named = {target for group in groups() for target in targets(group)}
    for old, new in CLASSES.items():
        module, _, name = new.rpartition(".")
        assert hasattr(importlib.import_module(module), name)
        assert new in named
        assert old not in named
    for old, new in KEYS.items():
        assert old.rpartition(".")[0] == new.rpartition(".")[0], "only the last part of a path may change"
    for table in (KEYS, CLASSES, TEXTS):
        assert not set(table) & set(table.values())
        assert len(set(table.values())) == len(table), "else there is no inverse"


def test_a_stored_config_is_read_under_todays_names():
    assert migrated(OLD) == NEW
    assert migrated(NEW) == NEW
    assert read_stored(yaml.safe_dump(OLD)) == NEW
    assert former(NEW) == OLD


def test_flat_values_too():
    flat = {"grid._target_": "langevin.samplers.grid.Uniform", "grid.rho": 7.0, "gridlines": 1}
    new = {
        "timestep_spacing._target_": "langevin.samplers.timestep_spacing.UniformSpacing",
        "timestep_spacing.rho": 7.0,
        "gridlines": 1,
    }
    assert migrated(flat) == new
    assert former(new) == flat


def test_a_protocol_is_read_under_todays_names():
    record = {
        "features": {"preprocessing": "to 224 x 224, normalized as ImageNet's pictures"},
        "samples": {"grid": {"_target_": "langevin.samplers.grid.Trailing"}, "guidance": None},
        "metrics": {"fid": {"settings": {"_target_": "mine.FID"}, "values": ["fid@5"]}},
    }
    assert of_value(record, "fid@5") == {
        "features.preprocessing": "to 224 x 224, normalized as ImageNet's images",
        "samples.timestep_spacing._target_": "langevin.samplers.timestep_spacing.Trailing",
        "samples.guidance": None,
        "metric._target_": "mine.FID",
    }


@pytest.mark.parametrize(
    ("overrides", "name"), NAMED.items(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else value
)
def test_a_run_keeps_its_name(overrides, name):
    assert automatic_name(*composed("train", *overrides)) == name


def test_a_digest_of_a_record_stays_what_it_was():
    samples = {name: node for name, node in OLD.items() if name != "condition"}
    old = {"features": {"preprocessing": "normalized as CLIP's pictures"}, "samples": samples, "seed": 0}
    new = migrated(old)
    assert new["samples"]["timestep_spacing"] == NEW["timestep_spacing"]
    assert digest(new) == digest(old) == "d607d0f8"


@pytest.mark.parametrize("conditions", ["[]", "[class_label]", "[class_label,vector]"])
def test_a_rename_is_no_difference(conditions):
    cfg, _ = composed("train", "formulation=edm", f"conditions={conditions}")
    held = read_stored(yaml.safe_dump(former(OmegaConf.to_container(cfg, resolve=True))))
    assert "condition" not in held
    assert differences(held, cfg) == []
    old = read_stored(yaml.safe_dump(former(identity(cfg))))
    assert identity(old) == identity(cfg)
    assert differences(old, cfg) == []


def test_an_old_class_is_refused_with_its_name_of_today():
    with pytest.raises(TargetError, match=r"edm\.EDM' is called langevin\.diffusion\.schedules\.edm\.EDMSchedule now$"):
        signature("langevin.diffusion.schedules.edm.EDM")


def test_an_old_option_has_a_name_of_today():
    assert current("grid.rho") == "timestep_spacing.rho"
    assert current("sampler.grid") == "sampler.grid"
