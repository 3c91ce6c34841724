"""The mistakes in a study.yaml, and in the configs that it means: all reported before anything runs."""

import pytest
from contracts.options import with_files
from helpers.commands import ROOT, composed
from helpers.saved import save_untrained
from study_helpers import MEASURED, QUIET, study, write

from langevin.assembly.check import mistakes_in
from langevin.config.types import plain
from langevin.errors import UserError
from langevin.spec import DataSpec
from langevin.study.cells import lay_out, trained_values
from langevin.study.confounds import confounds, overacknowledged, unacknowledged, varied
from langevin.study.plan import StudyError, read_study
from langevin.study.results import may_differ

RATE = {"slow": "optimizer.lr=1e-4", "fast": "optimizer.lr=3e-2"}
SCALING = {"full": [], "half": "rescalings=[input_scaling]"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": None}, "question: must be given: a text"),
        ({"seeds": []}, "seeds: must be given: a list, each item a whole number, at least 0"),
        ({"seeds": [0, -1]}, "seeds: is [0, -1]; allowed: a list, each item a whole number, at least 0"),
        ({"seeds": [1, 1]}, "seeds: is [1, 1]; allowed: each seed once"),
        ({"factor": {}}, "factor: no such option (did you mean factors?); allowed: question, base, factors, "),
        ({"factors": None}, "factors: must be given, here or in evaluate: at least one factor with its arms"),
        ({"factors": ["rate"]}, "factors: is ['rate']; allowed: a mapping, "),
        ({"factors": {"rate": {"slow": 3}}}, "factors.rate.slow: is 3; allowed: a text or a list, each item a text"),
        ({"factors": {"rate": {True: "seed=1"}}}, "factors.rate: has the key True, as YAML reads yes, no, on and off"),
        ({"factors": {"rate": {"slow": "optimizer.lr=1"}}}, "factors.rate: has 1 arms; allowed: two or more"),
        ({"factors": {"rate": {"a/b": [], **RATE}}}, "factors.rate: 'a/b' is not a valid name; allowed: letters"),
        ({"factors": {"rate": {"a": "lr", **RATE}}}, "factors.rate.a: 'lr' is no override; allowed: KEY=VALUE, such"),
        ({"factors": {"rate": {"a": "seed=1", **RATE}}}, "factors.rate.a: 'seed=1': seed is set by the study"),
        ({"factors": {"rate": {"a": "schedule=linear,vp"}}}, "'schedule=linear,vp' has several values; give each an"),
        ({"base": "hydra/launcher=slurm"}, "base: 'hydra/launcher=slurm': Hydra's own settings are given on the"),
        ({"factors": {"rate": RATE, "other": RATE}}, "factors.other.fast: sets optimizer.lr, as does the factor rate"),
        ({"factors": {"a": {"x": [], "x-x": RATE["slow"]}, "b": {"x": [], "x-x": "ema=images"}}}, "the same name"),
        ({"cells": []}, "cells: is []; allowed: some of slow, fast, or leave it out for all"),
        ({"cells": ["slow", "quick"]}, "cells: 'quick' is not a combination of arms; allowed: slow, fast"),
        ({"measures": {"train/loss": "upward"}}, "measures.train/loss: is 'upward'; allowed: one of up, down"),
        ({"measures": {"fid@500": "down"}}, "measures.fid@500: allowed: a column of metrics.csv, eval/..., val/..."),
        ({"evaluate": {"base": "metrics=[fid]"}}, "measures.train/loss: allowed: a name in metrics.json, such as"),
        ({"evaluate": {"factors": {"rate": RATE}}}, "evaluate.factors.rate: is the name of a factor of training too"),
        ({"evaluate": {"base": "out=here"}}, "evaluate.base: 'out=here': out is set by the study; leave it out"),
        ({"evaluate": {"seeds": [0]}}, "evaluate.seeds: no such option; allowed: base, factors"),
    ],
)
def test_mistakes_in_the_file(tmp_path, changes, message):
    with pytest.raises(StudyError) as caught:
        read_study(write(tmp_path / "mine", **changes))
    assert message in str(caught.value)
    assert str(tmp_path / "mine" / "study.yaml") in str(caught.value)


def test_all_of_them_are_reported_at_once(tmp_path):
    folder = write(tmp_path, seeds=["a"], question=3, bass="x")
    with pytest.raises(StudyError, match="3 mistakes:") as caught:
        read_study(folder)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()[1:]] == [
        "  question",
        "  seeds",
        "  bass",
    ]


@pytest.mark.parametrize("text", ["a: [", "- 1", "\x00", "seeds: [0]\nseeds: [1]"])
def test_no_study_at_all(tmp_path, text):
    with pytest.raises(UserError, match=r"study\.yaml does not exist; give a folder"):
        read_study(tmp_path)
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(UserError, match=r"study\.yaml(: must hold question:| cannot be read as YAML:)"):
        read_study(tmp_path)


def test_the_command_line_beats_the_base_and_leaves_the_factors_alone(tmp_path):
    folder = write(tmp_path, base=["trainer.max_steps=3"])
    (cell, _) = lay_out(read_study(folder, ["trainer.max_steps=5"])).trained
    assert cell.cfg.trainer.max_steps == 5
    with pytest.raises(StudyError, match=r"factors\.rate\.slow: sets optimizer\.lr, as does the command line"):
        read_study(folder, ["optimizer.lr=1"])


def test_mistakes_in_the_configs_are_reported_once_with_their_cells_and_nothing_is_written(tmp_path):
    arms = {"slow": "batch_size=0", "fast": ["optimizer.lr=1", "sampler.eta=2"]}
    folder = write(tmp_path, factors={"rate": arms}, base=[*QUIET, *MEASURED, f"output_dir={tmp_path}", "modell=unet"])
    before = sorted(tmp_path.rglob("*"))
    output = study(folder, status=1).err
    assert f"error: {folder / 'study.yaml'}: 3 mistakes:" in output
    assert "  batch_size: is 0; allowed: a whole number, at least 1 (in slow)\n" in output
    assert "  sampler.eta: is 2; allowed: a number, at least 0, at most 1 (in fast)\n" in output
    (line,) = (line for line in output.splitlines() if "modell" in line)
    assert line.startswith("  modell: no such option (did you mean model?)")
    assert "(in" not in line.partition("?)")[2]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"factors": {"schedule": {"a": "schedule=lineer", "b": []}}},
            r"schedule/lineer: there is no such option; allow",
        ),
        ({"factors": {"rate": {"a": "optimizer.lr=2", "b": "optimizer.lr=2"}}}, "b: is the same config as a"),
        ({"base": ["metrics=[]", *QUIET]}, "measures.eval/class_accuracy: needs samples, but no metric is chosen"),
        ({"measures": {"val/loss": "down"}}, "is not measured at the last step, 3; set trainer.val_check_interval to"),
        (
            {"factors": {"n": {"a": [], "b": "trainer.devices=2"}}, "base": [*QUIET, *MEASURED, "batch_size=4"]},
            "same c",
        ),
        ({"confounds_acknowledged": ["sampler"]}, "confounds_acknowledged: 'sampler' does not vary; allowed: nothing"),
        (
            {
                "evaluate": {"base": ["sampler.step=3", "metrics=[class_accuracy]"]},
                "measures": {"class_accuracy": "up"},
            },
            "evaluate: sampler.step: no such option (did you mean steps?)",
        ),
        (
            {"evaluate": {"base": ["sampler.steps=3"]}, "measures": {"class_accuracy": "up"}},
            "must choose at least one metric, such as metrics=[fid]",
        ),
    ],
)
def test_mistakes_that_show_when_the_cells_are_composed(tmp_path, changes, message):
    output = study(write(tmp_path, **changes), status=1)
    assert message in output.err
    assert "Traceback" not in output.err
    assert not (tmp_path / "runs").exists()


def laid_out(tmp_path, factors, **changes):
    return lay_out(read_study(write(tmp_path, factors=factors, **changes)))


SCHEDULE = {"linear": "schedule=linear", "cosine": "schedule=cosine"}


@pytest.mark.parametrize(
    ("factors", "fields"),
    [
        ({"rate": RATE}, ["optimizer.lr"]),
        ({"schedule": SCHEDULE}, ["schedule"]),
        ({"scaling": SCALING}, ["rescalings.input_scaling"]),
        ({"size": {"small": [], "large": "model=unet_large"}}, None),
        ({"tuned": {"a": ["schedule=linear", "optimizer.lr=1"], "b": ["schedule=vp", "optimizer.lr=2"]}}, None),
        ({"bundle": {"vp": "formulation=vp_sde", "ve": "formulation=ve_sde"}}, ["schedule"]),
        ({"both": {"a": "sampler.steps=2", "b": ["sampler=ddim", "sampler.steps=3"]}}, ["sampler.steps"]),
    ],
)
def test_a_factor_that_varies_what_its_arms_name_is_not_confounded(tmp_path, factors, fields):
    grid = laid_out(tmp_path, factors, measures={"eval/class_accuracy": "up"})
    assert confounds(grid) == {}
    if fields is not None:
        assert varied(grid) == dict.fromkeys(factors, fields)


@pytest.mark.parametrize(
    ("arms", "fields"),
    [
        ({"linear": "schedule=linear", "tuned": ["schedule=cosine", "optimizer.lr=1"]}, ["optimizer.lr"]),
        (
            {"linear": [], "tuned": ["schedule=cosine", "optimizer.lr=1"], "sigmoid": "schedule=sigmoid"},
            ["optimizer.lr"],
        ),
        ({"short": "schedule=linear", "long": ["schedule=cosine", "trainer.max_steps=6"]}, ["trainer.max_steps"]),
        ({"ddpm": "formulation=ddpm", "vp": "formulation=vp_sde"}, ["sampler", "schedule", "thresholding"]),
        ({"few": "sampler.steps=2", "heun": "sampler=heun"}, ["sampler"]),
    ],
)
def test_what_varies_with_a_factor_is_found(tmp_path, arms, fields):
    grid = laid_out(tmp_path, {"mine": arms}, measures={"eval/class_accuracy": "up"})
    assert confounds(grid) == {"mine": fields}
    assert unacknowledged(grid.study, confounds(grid)) == {"mine": fields}


def test_a_codecs_run_decides_by_its_weights_not_by_its_place(tmp_path):
    """So results are found when it has been moved, and not taken for another autoencoder's."""
    tiny = ("task=autoencoder", "autoencoder.channels=8", "autoencoder.norm_groups=4")
    runs = {name: tmp_path / f"{name}.ckpt" for name in ("one", "moved", "other")}
    for name, path in runs.items():
        wide = ["autoencoder.blocks_per_level=2"] if name == "other" else []
        save_untrained(path, composed("train", *tiny, *wide)[0], DataSpec.of_images(1, 8, 10))
    arms = {name: ["codec=autoencoder", f"codec.run={path}"] for name, path in runs.items()}
    folder = write(tmp_path / "study", factors={"codec": arms}, cells=["one", "other"])
    one, other = lay_out(read_study(folder)).trained
    assert one.decides["codec.weights"] != other.decides["codec.weights"]
    (moved,) = lay_out(read_study(write(tmp_path / "again", factors={"codec": arms}, cells=["moved"]))).trained
    assert moved.decides == one.decides


def test_so_does_the_run_that_is_started_from(tmp_path):
    runs = {name: tmp_path / f"{name}.ckpt" for name in ("one", "moved", "other")}
    for name, path in runs.items():
        wide = ["model.channels=64"] if name == "other" else ["model.channels=32"]
        save_untrained(path, composed("train", *wide)[0], DataSpec.of_images(1, 8, 10))
    folder = write(
        tmp_path / "study", factors={"init": {name: f"init.checkpoint={path}" for name, path in runs.items()}}
    )
    with pytest.raises(UserError, match="moved: is the same config as one; allowed: arms that differ"):
        lay_out(read_study(folder))


@pytest.mark.parametrize(
    "chosen",
    [
        ["codec=autoencoder", "codec.run={autoencoder}"],
        ["init.checkpoint={model}"],
        ["auxiliaries=[alignment]", "auxiliaries.alignment.run={classifier}"],
        pytest.param(
            ["conditions=[text]", "captions=templates", "text=clip", "text.path={clip}", "text.length=16"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda chosen: chosen[0],
)
def test_a_cell_decides_by_what_its_runs_record(tmp_path, chosen):
    """By digests of weights that are found when a run is started, too: else a study refuses its own runs."""
    grid = laid_out(tmp_path, {"rate": RATE}, base=[*QUIET, *map(with_files, chosen)], measures={"train/loss": "down"})
    for cell in grid.trained:
        laid = dict(cell.decides)
        assert mistakes_in(cell.cfg) == []
        assert trained_values(plain(cell.cfg)) == laid


def test_a_broken_task_is_one_message(tmp_path):
    base = [*QUIET, "auxiliaries=[alignment]", "auxiliaries.alignment.run=nowhere", "task._target_=nothing.at.all"]
    (mistake,) = mistakes_in(laid_out(tmp_path, {"rate": RATE}, base=base).trained[0].cfg)
    assert mistake.path == "task._target_"


def test_acknowledged_confounds(tmp_path):
    arms = {"linear": "schedule=linear", "tuned": ["schedule=cosine", "optimizer.lr=1", "ema.max_decay=0.5"]}
    grid = laid_out(tmp_path, {"mine": arms}, confounds_acknowledged=["optimizer", "train/loss"])
    found = confounds(grid)
    assert len(found["mine"]) == 3
    assert unacknowledged(grid.study, found) == {"mine": ["ema.max_decay"]}
    assert overacknowledged(grid.study, found) == []


def test_losses_of_different_schedules_do_not_compare_and_those_of_different_rates_do(tmp_path):
    grid = laid_out(tmp_path, {"schedule": SCHEDULE, "rate": RATE})
    assert confounds(grid) == {"schedule": ["train/loss, which is another quantity for another schedule"]}


def test_cells_that_leave_factors_to_vary_together(tmp_path):
    factors = {"schedule": SCHEDULE, "rate": RATE}
    grid = laid_out(tmp_path, factors, cells=["linear-slow", "cosine-fast"], measures={"eval/class_accuracy": "up"})
    assert [cell.name for cell in grid.trained] == ["linear-slow", "cosine-fast"]
    assert confounds(grid) == {name: [f"no two cells differ in {name} alone"] for name in factors}
    grid = laid_out(tmp_path, factors, cells=["linear-slow", "cosine-fast", "cosine-slow"])
    assert confounds(grid) == {"schedule": ["train/loss, which is another quantity for another schedule"]}


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(ROOT.glob("experiments/*/study.yaml")), ids=lambda file: file.parent.name)
def test_the_studies_here_compose_and_are_not_confounded(file):
    grid = lay_out(read_study(file.parent))
    assert confounds(grid) == {}
    assert [mistake for cell in grid.trained for mistake in mistakes_in(cell.cfg)] == []


def test_what_of_a_protocol_may_differ():
    assert may_differ("samples.sampler.steps", {"sampler.steps"})
    assert may_differ("samples.sampler.steps", {"sampler"})
    assert not may_differ("samples.sampler.eta", {"sampler.steps"})
    assert may_differ("samples.evaluations", {"sampler.steps"})
    assert not may_differ("samples.evaluations", {"schedule"})
    assert may_differ("samples.labels", {"conditions"})
    assert not may_differ("num_samples", {"num_samples"})
    assert not may_differ("features.sha256", {"features"})
