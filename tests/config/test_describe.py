"""What the help shows is what the YAML files say: the right values are those that yaml itself and Hydra read."""

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from langevin.commands import convert, evaluate, sample, train
from langevin.config.describe import (
    CONF,
    REQUIRED,
    command_comment,
    command_groups,
    command_options,
    first_sentence,
    part,
    part_names,
)
from langevin.config.options import RUN_OPTIONS
from langevin.config.validate import groups, groups_of

OPTIONS = {"train": RUN_OPTIONS, "sample": sample.OPTIONS, "evaluate": evaluate.OPTIONS, "convert": convert.OPTIONS}


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        elif not key.startswith("_"):
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("command", OPTIONS)
def test_a_command_shows_each_of_its_options_with_its_default_and_what_it_means(command):
    assert train.run  # the module that OPTIONS of "train" belongs to
    shown = {option.path: option for option in command_options(command)}
    assert set(shown) == set(OPTIONS[command])
    read = yaml.safe_load((CONF / f"{command}.yaml").read_text())
    read.pop("defaults")
    assert {path: yaml.safe_load(option.default) for path, option in shown.items()} == dict(leaves(read))
    assert [path for path, option in shown.items() if not option.comment] == []
    assert [group.name for group in command_groups(command)] == groups_of(command)
    assert [group.name for group in command_groups(command) if not group.comment] == []
    assert f"langevin {command} " in command_comment(command)


@pytest.mark.parametrize("group", groups())
def test_a_part_says_what_it_is_and_what_each_of_its_fields_means(group):
    for name in part_names(group):
        about = part(group, name)
        assert first_sentence(about.comment), name
        if group not in ("experiment", "debug"):  # a recipe sets what is described where it belongs
            assert [option.path for option in about.options if not option.comment] == [], name


@pytest.mark.filterwarnings("ignore:.*Defaults list is missing `_self_`")  # what is alone here is a base's addition
@pytest.mark.parametrize("name", part_names("trainer"))
def test_a_part_that_builds_upon_another_shows_the_fields_of_both_as_hydra_composes_them(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = OmegaConf.to_container(compose(f"trainer/{name}"), resolve=False)
    shown = {option.path: yaml.safe_load(option.default) for option in part("trainer", name).options}
    assert shown == dict(leaves(composed))


def test_a_formulation_shows_what_it_chooses():
    about = part("formulation", "flow")
    assert about.options == []
    assert {"schedule=flow", "parameterization=flow", "weighting=unit_flow"} <= set(about.choices)


def test_a_value_that_must_be_given_and_a_nested_option():
    shown = {option.path: option for option in command_options("sample")}
    assert shown["checkpoint"].default == REQUIRED
    assert shown["edit.strength"].default == "0.5"
