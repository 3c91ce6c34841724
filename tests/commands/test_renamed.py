"""What an earlier version stored is read under today's names; an old name that is given by hand is refused."""

import json

import numpy as np
import pytest
import yaml
from helpers.commands import TINY, call

from langevin.config.migration import former
from langevin.runs import find_runs


@pytest.mark.parametrize(
    ("command", "overrides", "words"),
    [
        ("train", ["grid=karras"], "error: grid=karras: grid is called timestep_spacing now\n"),
        ("train", ["grid.rho=3"], "error: grid.rho=3: grid.rho is called timestep_spacing.rho now\n"),
        ("train", ["grid=karras", "grid.rho=3"], "error: grid=karras: grid is called timestep_spacing now\n"),
        ("train", ["~grid"], "error: ~grid: grid is called timestep_spacing now\n"),
        ("sample", ["checkpoint=RUN", "+grid=karras"], "error: +grid=karras: grid is called timestep_spacing now\n"),
        (
            "train",
            ["schedule._target_=langevin.diffusion.schedules.edm.EDM"],
            "schedule._target_: 'langevin.diffusion.schedules.edm.EDM' is called "
            "langevin.diffusion.schedules.edm.EDMSchedule now\n",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_an_old_name_is_refused_with_the_new_one(command, overrides, words):
    result = call(command, *overrides)
    assert result.status == 1
    assert words in result.err
    assert "Traceback" not in result.err


def test_a_run_of_an_earlier_version_is_resumed_and_listed(tmp_path):
    options = (*TINY[:-2], "sampler.steps=2", "formulation=edm", "callbacks=[checkpoint]", f"output_dir={tmp_path}")
    first = call("train", *options)
    assert first.status == 0, first.err
    (run_dir,) = tmp_path.iterdir()
    config = run_dir / "config.yaml"
    config.write_text(yaml.safe_dump(former(yaml.safe_load(config.read_text()))))
    assert "langevin.samplers.grid.Karras" in config.read_text()
    resumed = call("train", *options, "trainer.max_steps=3")
    assert resumed.status == 0, resumed.err
    assert f"{run_dir}: from step 2 to 3" in resumed.out
    assert "langevin.samplers.timestep_spacing.Karras" in config.read_text()
    (runs,) = find_runs(tmp_path).values()
    assert [(run.name, run.state, run.step) for run in runs] == [(run_dir.name, "done", 3)]


def test_samples_of_an_earlier_version_are_done(plain, tmp_path):
    options = (f"checkpoint={plain}", "num_samples=2", "accelerator=cpu", f"out={tmp_path}", "timestep_spacing=karras")
    assert call("sample", *options).status == 0
    with np.load(tmp_path / "samples.npz") as arrays:
        held = dict(arrays)
    record = former(json.loads(str(held["record"])))
    assert record["samples"]["grid"]["_target_"] == "langevin.samplers.grid.Karras"
    np.savez(tmp_path / "samples.npz", **{**held, "record": json.dumps(record)})
    again = call("sample", *options)
    assert again.status == 0, again.err
    assert "is done: 2 images" in again.out
