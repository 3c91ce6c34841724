"""Every option of every group goes into the commands that name its group, without a mistake."""

import functools
import itertools
import re

import pytest
import torch
from helpers.commands import composed
from omegaconf import OmegaConf

from contracts.options import (
    COMMANDS,
    NEEDS,
    OPTIONS,
    OTHER_TASKS,
    REFUSED,
    SLOW,
    STEPPING,
    choice,
    chosen_in,
    needs_hydra,
    swapped,
    with_files,
)
from langevin.assembly.check import check_model, mistakes_in
from langevin.assembly.components import SAMPLING
from langevin.assembly.make import make
from langevin.assembly.restoring import RESTORING, make_operator
from langevin.assembly.run import dry_build
from langevin.assembly.saved import override
from langevin.commands import evaluate, sample
from langevin.config.validate import PLURAL, groups_of, options, structure
from langevin.restoration.restoration import Restoration


def places(command):
    named = groups_of(command)
    return [(group, option) for group, option in OPTIONS if group in named]


def test_every_option_belongs_somewhere():
    assert {place for command in COMMANDS for place in places(command)} == set(OPTIONS)


@functools.cache
def base():
    return composed("train", "model.channel_multipliers=[1]")[0]  # a level, not three, is built by each check


def test_hydra_composes_every_option_as_its_file_stands():
    """One of each group at a time; the test below takes them from their files."""
    simple = {}
    for group, option in places("train"):
        if not needs_hydra(group, option):
            simple.setdefault(group, []).append(option)
    for row in range(max(map(len, simple.values()))):
        chosen = {group: names[row % len(names)] for group, names in simple.items()}
        cfg, choices = composed("train", *(f"{group}={option}" for group, option in chosen.items()))
        assert chosen.items() <= choices.items()
        taken = swapped(base(), **chosen)
        for group in chosen:
            assert OmegaConf.to_container(cfg)[group] == OmegaConf.to_container(taken)[group]


# What `dry_build` builds; of the other groups it knows nothing.
LATE = {
    "callbacks",
    "debug",
    "evaluation",
    "experiment",
    "features",
    "loader",
    "loggers",
    "metrics",
    "optimizer",
    "trainer",
}

# Everyday, these go together in `test_all_options_of_the_plural_groups_at_once`, or are checked where they take a step.
ELSEWHERE = {"callbacks", "likelihoods", "loggers", "metrics"}
STEPPING_PLACES = {place for place in OPTIONS if place[0] in STEPPING and place not in OTHER_TASKS | REFUSED}


@pytest.mark.parametrize(
    ("group", "option"),
    [
        pytest.param(*place, marks=pytest.mark.slow if place[0] in ELSEWHERE or place in SLOW | STEPPING_PLACES else ())
        for place in places("train")
    ],
)
def test_in_training(group, option):
    cfg = chosen_in(base(), (), group, option)  # what Hydra must compose keeps its own network
    mistakes = mistakes_in(cfg)
    path = f"{group}.{option}" if group in PLURAL else "perceptual.net" if group == "perceptual" else group
    refused = [path] if (group, option) in REFUSED else []
    if group == "trainer" and cfg.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        refused = ["trainer.accelerator"]
    if group == "trainer" and cfg.trainer.strategy == "fsdp" and torch.cuda.device_count() < 2:
        refused.append("trainer.strategy")
    late = dry_build(cfg) if group in LATE else []
    assert [path for path, _ in mistakes + late] == refused, mistakes


@pytest.mark.parametrize(
    ("place", "command"),
    zip(
        [place for place in places("sample") if place[0] in SAMPLING], itertools.cycle([sample, evaluate]), strict=False
    ),
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else value.__name__.rpartition(".")[2],
)
def test_in_sampling(place, command):
    group, option = place
    overrides = choice(group, option)
    of_sampling = [override for override in overrides if re.split("[.=]", override)[0] in SAMPLING]
    run, _ = composed("train", *(override for override in overrides if override not in of_sampling))
    cfg, choices = composed(command.__name__.rpartition(".")[2], *of_sampling, "checkpoint=somewhere")
    assert choices[group] == option
    own = {name: cfg[name] for name in cfg if name not in SAMPLING}
    required, optional = getattr(command, "REQUIRED", ()), getattr(command, "OPTIONAL", ())
    assert structure(type(cfg)(own), command.OPTIONS, required, (*optional, *SAMPLING)) == []
    chosen = override(run, cfg, SAMPLING)
    check_model(chosen, SAMPLING)
    assert chosen[group] == cfg[group]


@pytest.mark.parametrize(("group", "option"), [place for place in places("sample") if place[0] in RESTORING])
def test_in_restoration(group, option):
    operators = choice("operators", option if group == "operators" else "average")
    method = option if group == "restoration" else "ddnm"
    cfg, _ = composed("sample", "checkpoint=somewhere", f"restoration={method}", *operators)
    sample.check(cfg)
    assert make_operator(cfg).measured((3, 8, 8))
    assert isinstance(make(cfg, "restoration"), Restoration)


@pytest.mark.parametrize(
    ("group", "option"), [place for place in places("evaluate") if place[0] not in (*SAMPLING, *RESTORING)]
)
def test_in_evaluation(group, option):
    overrides = [each for each in choice(group, option) if re.split("[.=]", each)[0] in groups_of("evaluate")]
    cfg, _ = composed("evaluate", *overrides, "samples=somewhere")
    assert structure(cfg, evaluate.OPTIONS, evaluate.REQUIRED, evaluate.OPTIONAL) == []
    if group in PLURAL:
        assert list(cfg[group]) == [option]


def test_all_options_of_the_plural_groups_at_once():
    # Rescalings act one after the other, so that their order must make sense.
    of_training = [group for group in PLURAL if group in groups_of("train")]
    together = {group: [name for name in options(group) if (group, name) not in REFUSED] for group in of_training}
    together["rescalings"] = ["zero_terminal_snr", "resolution_shift", "input_scaling"]
    chosen = [f"{group}=[{','.join(names)}]" for group, names in together.items()]
    chosen += [with_files(need) for (group, _), needs in NEEDS.items() if group in together for need in needs]
    cfg, _ = composed("train", *chosen, "conditions=[class_label,inpaint,low_res,hint,text]", "loader=default")
    mistakes = mistakes_in(cfg)
    assert mistakes + dry_build(cfg) == []
    assert set(cfg.metrics) == set(together["metrics"])
