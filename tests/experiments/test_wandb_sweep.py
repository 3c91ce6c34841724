"""The files for `wandb sweep`, made into commands by W&B's own agent's code."""

import math
from importlib.util import find_spec

import pytest
import yaml
from helpers.commands import ROOT, composed
from omegaconf import OmegaConf

from langevin.assembly.check import mistakes_in
from langevin.config.validate import groups, options

pytestmark = pytest.mark.skipif(find_spec("wandb") is None, reason="the package wandb is not installed")

FILES = sorted((ROOT / "experiments" / "sweeps").glob("wandb_*.yaml"))


def values_of(parameter):
    """Those that W&B may try; of a range its ends, and one like the unrounded numbers between."""
    if "values" in parameter:
        return parameter["values"]
    assert parameter["distribution"] == "log_uniform_values"
    return [parameter["min"], math.sqrt(parameter["min"] * parameter["max"]), parameter["max"]]


def command(sweep, chosen):
    """What the agent runs; see `Agent._command_run` of `wandb.wandb_agent`."""
    from wandb.sdk.launch.sweeps import utils  # takes seconds

    args = {"args": {name: {"value": value} for name, value in chosen.items()}}
    known = {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
    known |= utils.create_sweep_command_args(args)
    parts = []
    for part in utils.create_sweep_command(list(sweep["command"])):
        parts += known[part[2:-1]] if part.startswith("${") else [part]
    return parts


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_cell_is_a_run(file):
    """Each parameter's every value reaches the option that it names, and the config has no mistake."""
    sweep = yaml.safe_load(file.read_text())
    assert (ROOT / sweep["program"]).is_file()
    first = {name: values_of(parameter)[0] for name, parameter in sweep["parameters"].items()}
    for name, parameter in sweep["parameters"].items():
        for value in values_of(parameter):
            start, python, program, *overrides = command(sweep, {**first, name: value})
            assert (start, python, program) == ("/usr/bin/env", "python", "train.py")
            cfg, choices = composed("train", *overrides)
            assert mistakes_in(cfg) == []
            if name in groups():
                assert value in options(name)
                assert choices[name] == value
            else:
                assert OmegaConf.select(cfg, name) == value
            assert list(cfg.loggers) == ["wandb"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_metric_is_logged(file):
    sweep = yaml.safe_load(file.read_text())
    source, _, name = sweep["metric"]["name"].partition("/")
    cfg, _ = composed("train", *command(sweep, {})[3:])
    assert source == "eval"
    assert name in cfg.metrics
    assert cfg.evaluation.every_n_steps <= cfg.trainer.max_steps


def test_there_are_some():
    assert FILES
