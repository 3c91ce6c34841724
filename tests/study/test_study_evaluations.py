"""Studies that train once and evaluate in several ways."""

import json
import shutil

import pytest
from study_helpers import QUIET, rows, saved, study, write

BASE = [*QUIET, "conditions=[class_label]", "trainer.max_steps=3", "sampler.steps=2"]
EVALUATE = {
    "base": ["metrics=[class_accuracy]", "num_samples=20", "accelerator=cpu"],
    "factors": {"steps": {"few": "sampler.steps=1", "more": "sampler.steps=4"}},
}


def written(folder, **changes):
    """Two runs of one arm, each of them evaluated in two ways."""
    base = [*BASE, f"output_dir={folder / 'runs'}"]
    values = {"base": base, "factors": None, "evaluate": EVALUATE, "measures": {"class_accuracy": "up"}}
    return write(folder, **(values | changes))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = written(tmp_path_factory.mktemp("evaluated") / "steps")
    return folder, study(folder)


@pytest.fixture
def copied(first, tmp_path):
    shutil.copytree(first[0], tmp_path / "steps")
    return written(tmp_path / "steps")


def measured(folder):
    """When each evaluation was written."""
    return {path.parent: path.stat().st_mtime_ns for path in folder.glob("runs/*/evaluations/*/metrics.json")}


@pytest.mark.slow
def test_each_run_is_trained_once_and_evaluated_in_every_way(first):
    folder, result = first
    assert "2 runs in" in result.out
    assert "4 evaluations to make" in result.out
    assert len(saved(folder)) == 2
    assert len(measured(folder)) == 4
    table = rows(folder / "table.csv")
    assert [(row["seed"], row["steps"]) for row in table] == [(s, steps) for s in "01" for steps in ("few", "more")]
    for row in table:
        content = json.loads((folder / "runs" / row["folder"] / "metrics.json").read_text())
        assert float(row["class_accuracy"]) == content["metrics"]["class_accuracy"]
        assert content["protocol"]["samples"]["sampler"]["steps"] == {"few": 1, "more": 4}[row["steps"]]
        assert f"seed{row['seed']}-" in content["model"]["checkpoint"]
        assert content["model"]["step"] == 3
    assert "more - few" in (folder / "table.md").read_text()


def test_rerun_nothing_is_evaluated_again(first):
    folder, _ = first
    before = saved(folder), measured(folder)
    assert "0 evaluations to make" in study(folder).out
    assert (saved(folder), measured(folder)) == before


def test_another_way_of_evaluating_trains_nothing(copied):
    before, trained = measured(copied), saved(copied)
    arms = {"few": "sampler.steps=1", "most": "sampler.steps=5"}
    written(copied, evaluate=EVALUATE | {"factors": {"steps": arms}})
    result = study(copied)
    assert "0 of them to train" in result.out
    assert "2 evaluations to make" in result.out
    assert saved(copied) == trained
    assert {place: time for place, time in measured(copied).items() if place in before} == before


def test_what_differs_but_is_not_varied_is_refused(copied):
    place = next(place for place in measured(copied) if "more" in place.name)
    content = json.loads((place / "metrics.json").read_text())
    content["protocol"]["samples"]["timestep_spacing"]["_target_"] = "another.Grid"
    (place / "metrics.json").write_text(json.dumps(content))
    result = study(copied, "table", status=1).err
    assert "class_accuracy: samples.timestep_spacing._target_: " in result
    assert f'"another.Grid" in {place}' in result
    assert "samples.sampler.steps" not in result, "which the study varies"


@pytest.mark.slow
def test_an_evaluation_that_is_damaged_or_of_an_earlier_step(copied):
    place = next(iter(measured(copied)))
    whole = json.loads((place / "metrics.json").read_text())
    (place / "metrics.json").write_text("{")
    assert (
        f"{place / 'metrics.json'} is no metrics.json of langevin evaluate (JSONDecodeError: "
        in study(copied, status=1).err
    )
    (place / "metrics.json").write_text(json.dumps(whole | {"model": whole["model"] | {"step": 2}}))
    assert f"{place.name}: not evaluated" in study(copied, "table").out
    assert "1 evaluations to make" in study(copied).out
    assert json.loads((place / "metrics.json").read_text())["model"]["step"] == 3
