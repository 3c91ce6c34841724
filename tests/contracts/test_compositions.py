"""Every option of every group goes into the commands that name its group, without a mistake."""

import pytest
from helpers.commands import composed

from contracts.options import COMMANDS, OPTIONS, chosen_groups
from langevin import evaluate, sample
from langevin.build.components import SAMPLING, check_model, mistakes_in, override
from langevin.build.run import rehearse
from langevin.config.validate import PLURAL, options, structure

# What an option of a group cannot do without.
NEEDS = {"guidance": ("condition=class_label",)}


def places(command):
    named = chosen_groups(command)
    return [(group, option) for group, option in OPTIONS if group in named]


def choice(group, option):
    return f"{group}=[{option}]" if group in PLURAL else f"{group}={option}"


def test_every_option_belongs_somewhere():
    assert {place for command in COMMANDS for place in places(command)} == set(OPTIONS)


@pytest.mark.parametrize(("group", "option"), places("train"))
def test_in_training(group, option):
    cfg, choices = composed("train", choice(group, option), *NEEDS.get(group, ()))
    if group not in PLURAL:
        assert choices[group] == option
    mistakes = mistakes_in(cfg)
    assert mistakes + rehearse(cfg) == []


@pytest.mark.parametrize(("group", "option"), places("sample"))
def test_in_sampling(group, option):
    run, _ = composed("train", *NEEDS.get(group, ()))
    cfg, choices = composed("sample", choice(group, option), "checkpoint=somewhere")
    assert choices[group] == option
    own = {name: cfg[name] for name in cfg if name not in SAMPLING}
    assert structure(type(cfg)(own), sample.OPTIONS, optional=SAMPLING) == []
    chosen = override(run, cfg, SAMPLING)
    check_model(chosen, SAMPLING)
    assert chosen[group] == cfg[group]


@pytest.mark.parametrize(("group", "option"), places("evaluate"))
def test_in_evaluation(group, option):
    cfg, _ = composed("evaluate", choice(group, option), "samples=somewhere")
    assert structure(cfg, evaluate.OPTIONS, evaluate.REQUIRED, evaluate.OPTIONAL) == []
    if group == "metrics":
        assert list(cfg.metrics) == [option]


def test_all_callbacks_loggers_and_metrics_at_once():
    chosen = [f"{group}=[{','.join(options(group))}]" for group in PLURAL]
    cfg, _ = composed("train", *chosen, "condition=class_label")
    mistakes = mistakes_in(cfg)
    assert mistakes + rehearse(cfg) == []
    assert set(cfg.metrics) == set(options("metrics"))
