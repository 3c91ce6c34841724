"""The mistakes that a config's shape shows, on small configs written here."""

import pytest
from omegaconf import OmegaConf

from langevin.config.validate import ConfigError, Mistake, options, structure, unknown

OPTIONS = {"seed": "int", "name": "str | None"}
DDIM = {"_target_": "langevin.samplers.ddim.DDIM", "steps": 50, "eta": 0.0}
SAMPLERS = f"sampler=NAME with one of {', '.join(options('sampler'))}"


def mistakes(values, required=(), optional=("sampler", "callbacks", "metrics")):
    return dict(structure(OmegaConf.create(values), OPTIONS, required, optional))


def test_a_whole_config_has_none():
    assert mistakes({"seed": 1, "name": None, "sampler": DDIM, "metrics": None, "callbacks": {}}, ["sampler"]) == {}


@pytest.mark.parametrize("values", [{}, {"sampler": None}])
def test_what_must_be_chosen(values):
    assert mistakes(values, ["sampler"]) == {"sampler": f"must be chosen: {SAMPLERS}"}


def test_a_group_that_the_command_does_not_have():
    assert mistakes({"model": {"channels": 3}}) == {
        "model": "no such option; allowed: seed, name, sampler, callbacks, metrics"
    }


@pytest.mark.parametrize("value", ["ddim", 3, [1]])
def test_a_component_is_chosen_by_name(value):
    assert mistakes({"sampler": value}) == {"sampler": f"is {value!r}, but a component is chosen by name: {SAMPLERS}"}


def test_a_missing_value_says_what_is_allowed():
    assert mistakes({"seed": "???", "sampler": {**DDIM, "eta": "???"}}) == {
        "seed": "must be given; allowed: a whole number",
        "sampler.eta": "must be given; allowed: a number, at least 0, at most 1",
    }


def test_broken_interpolations_are_reported_with_all_else():
    found = mistakes(
        {"seed": "${nowhere}", "name": 1, "sampler": {**DDIM, "steps": "${oc.env:NO_SUCH_VARIABLE}", "eta": "${name}"}}
    )
    assert set(found) == {"seed", "name", "sampler.steps"}
    assert "'nowhere' not found" in found["seed"]
    assert "NO_SUCH_VARIABLE" in found["sampler.steps"]
    assert mistakes({"name": "${name}"}).keys() == {"name"}


def test_good_interpolations_count_as_their_value():
    assert mistakes({"seed": 3, "sampler": {**DDIM, "steps": "${seed}", "eta": "${name}"}, "name": "x"}) == {
        "sampler.eta": "is 'x'; allowed: a number, at least 0, at most 1"
    }


def test_a_nested_component_is_looked_into():
    inner = {"_target_": "langevin.samplers.timestep_spacing.UniformSpacing", "step": 3}
    assert mistakes({"sampler": {**DDIM, "timestep_spacing": inner}}) == {
        "sampler.timestep_spacing.step": "no such option; allowed: none"
    }


def test_a_plural_group_holds_named_components():
    assert mistakes({"metrics": {"fid": {"min_samples": 2}, "fidd": {"min_samples": 2}}}) == {
        "metrics.fid": "is not chosen; choose it first: metrics=[fid]",
        "metrics.fidd": f"no such option (did you mean fid?); allowed: {', '.join(options('metrics'))}",
    }


def test_hints_only_at_what_is_close():
    assert unknown("num_step", ["num_steps", "s"]) == "no such option (did you mean num_steps?); allowed: num_steps, s"
    assert unknown("quux", ["num_steps", "s"]) == "no such option; allowed: num_steps, s"


def test_the_error_counts_and_lists():
    one = ConfigError([Mistake("seed", "is 'a'; allowed: a whole number")])
    assert str(one) == "1 mistake in the config:\n  seed: is 'a'; allowed: a whole number"
    assert str(ConfigError([Mistake("a", "b")] * 3)).startswith("3 mistakes in the config:\n  a: b\n")
