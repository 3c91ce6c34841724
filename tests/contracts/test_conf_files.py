"""What every file of conf/ must be, for the files that are there today and those of tomorrow."""

import importlib.util
import inspect
import re
import tomllib

import hydra
import pytest
from helpers.commands import ROOT

from contracts.options import COMMANDS, FILES, OPTIONS, components, group_of, load
from langevin.assembly.handed import HANDED
from langevin.config import describe as descriptions
from langevin.config.signature import signature
from langevin.config.types import TARGET, describe, fits
from langevin.config.validate import BUNDLES, CONF, PLURAL, groups, groups_of, options

# How torch's optimizers compute, which is not for a config to say.
ADAM = {"amsgrad", "maximize", "foreach", "capturable", "differentiable"}
UNLISTED = {
    "torch.optim.AdamW": ADAM,
    "torch.optim.Adam": ADAM | {"decoupled_weight_decay"},
    "torch.optim.SGD": {"maximize", "foreach", "differentiable"},
}

# By the groups, since a test for each of hundreds of files takes longer to begin than to run.
COMPONENTS = {}
for _file in FILES:
    for _node in components(_file):
        COMPONENTS.setdefault(group_of(_file), []).append((_file.stem, _node))
WITH_COMPONENTS = pytest.mark.parametrize("group", COMPONENTS)


def test_there_are_options_to_look_at():
    assert sum(map(len, COMPONENTS.values())) > 100
    assert {"schedule", "model", "callbacks", "formulation"} <= {group for group, _ in OPTIONS}


@WITH_COMPONENTS
def test_target_is_a_full_path_that_resolves(group):
    for option, node in COMPONENTS[group]:
        target = node[TARGET]
        found = hydra.utils.get_object(target)
        assert callable(found), option
        module, _, name = target.rpartition(".")
        assert found.__name__ == name, option
        assert found.__module__ == module or not module.startswith("langevin."), f"{option}: a re-export"


@WITH_COMPONENTS
def test_every_parameter_of_a_user_is_listed_and_no_other(group):
    for option, node in COMPONENTS[group]:
        parameters = set(inspect.signature(hydra.utils.get_object(node[TARGET])).parameters) - {"args"}
        listed = set(node) - {TARGET}
        assert listed <= parameters, option
        assert parameters - listed <= HANDED.keys() | UNLISTED.get(node[TARGET], set()), option


@WITH_COMPONENTS
def test_the_signature_read_from_the_source_is_the_real_one(group):
    for option, node in COMPONENTS[group]:
        real = inspect.signature(hydra.utils.get_object(node[TARGET])).parameters
        read = signature(node[TARGET])
        assert read is not None, option
        assert set(read) == set(real), option
        assert {name for name, field in read.items() if field.required} == {
            name for name, parameter in real.items() if parameter.default is parameter.empty
        }, option


@WITH_COMPONENTS
def test_every_value_fits_the_type_of_its_parameter(group):
    for option, node in COMPONENTS[group]:
        for key, value in node.items():
            elsewhere = isinstance(value, str) and (value == "???" or value.startswith("${"))
            if key != TARGET and not elsewhere:
                annotation = signature(node[TARGET])[key].annotation
                assert fits(value, annotation), f"{option}.{key}: {value!r} is not {describe(annotation)}"
                ours = node[TARGET].startswith("langevin.")
                assert annotation is not None or not ours, f"{option}.{key}: the constructor gives no type"


def test_no_component_is_interpolated():
    """Only a field may be, and so that it need not be there: other options of its group do not have it."""
    for file in FILES:
        used = re.findall(r"\$\{([\w.:]+)", file.read_text())
        of_groups = [name for name in used if re.split("[.:]", name.removeprefix("oc.select:"))[0] in groups()]
        assert all(re.fullmatch(r"oc\.select:\w+\.\w+", name) for name in of_groups), (file, of_groups)


@pytest.mark.parametrize(("bundle", "option"), [place for place in OPTIONS if place[0] in ("formulation", "task")])
def test_a_formulation_and_a_task_only_choose_groups(bundle, option):
    file = CONF / bundle / f"{option}.yaml"
    assert "@package _global_" in file.read_text()
    assert set(load(file)) <= {"defaults", bundle}
    for entry in load(file).get("defaults", ()):
        ((group, chosen),) = entry.items()
        name = group.removeprefix("override /")
        assert group == f"override /{name}"
        for each in chosen if isinstance(chosen, list) else [chosen]:
            assert each is None or each in options(name)


@pytest.mark.parametrize("option", options("experiment"))
def test_an_experiment_sets_fields_of_what_it_chooses(option):
    file = CONF / "experiment" / f"{option}.yaml"
    assert "@package _global_" in file.read_text()
    for entry in load(file)["defaults"]:
        assert all(group.startswith("override /") for group in entry)


@pytest.mark.parametrize(("group", "option"), [(group, option) for group, option in OPTIONS if group in PLURAL])
def test_an_option_of_a_plural_group_nests_under_its_own_name(group, option):
    node = load(CONF / group / f"{option}.yaml")
    assert list(node) == ([option] if "defaults" not in node else ["defaults"])
    if "defaults" in node:
        assert set(node["defaults"]) <= set(options(group))


@pytest.mark.parametrize(("group", "option"), [(group, option) for group, option in OPTIONS if option == "none"])
def test_none_chooses_nothing(group, option):
    assert load(CONF / group / "none.yaml") == {group: None}


def test_every_group_is_named_by_a_command():
    assert set(groups()) == {group for command in COMMANDS for group in groups_of(command)}


def test_bundles_come_last_so_that_they_override():
    chosen = groups_of("train")
    assert tuple(chosen[-len(BUNDLES) :]) == BUNDLES, "experiment must come after formulation, both after all others"


def conf_found_by(package):
    """The CONF of a copy of `describe.py` in langevin's folder `package`."""
    file = package / "config" / "describe.py"
    file.parent.mkdir(parents=True)
    file.write_text(inspect.getsource(descriptions))
    spec = importlib.util.spec_from_file_location("describe_elsewhere", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CONF


def test_conf_is_found_in_a_source_tree(tmp_path):
    (tmp_path / "conf").mkdir()
    assert conf_found_by(tmp_path / "src" / "langevin") == tmp_path / "conf"


def test_conf_is_found_in_an_installed_wheel(tmp_path):
    package = tmp_path / "site-packages" / "langevin"
    (package / "conf").mkdir(parents=True)
    (tmp_path / "conf").mkdir()  # of another project
    assert conf_found_by(package) == package / "conf"


def test_a_wheel_gets_conf():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"] == {"conf": "langevin/conf"}
    assert build["packages"] == ["src/langevin"]


def test_git_takes_every_file_of_the_package():
    """`build/` in .gitignore once left src/langevin/build out of every clone."""
    ignored = [line.strip() for line in (ROOT / ".gitignore").read_text().splitlines()]
    folders = {path.name for path in (ROOT / "src" / "langevin").rglob("*") if path.is_dir()} - {"__pycache__"}
    folders |= {path.name for path in (ROOT / "tests").rglob("*") if path.is_dir()} - {"__pycache__"}
    assert not {f"{folder}/" for folder in folders}.intersection(ignored)
