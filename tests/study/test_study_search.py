import csv
import json

import pytest
import yaml
from helpers.commands import call
from study_helpers import QUIET

from langevin.errors import UserError
from langevin.study import search as module
from langevin.study.search import best_first, search
from langevin.study.space import read_search

pytest.importorskip("optuna")
SPACE = {"optimizer.lr": {"low": 0.0, "high": 1.0}, "ema.max_decay": {"low": 0.0, "high": 0.9}}
SECTION = {"space": SPACE, "value": "train/loss", "trials": 30}


def write(folder, section=None, **changes):
    base = [*QUIET, "trainer.max_steps=2", "lr_schedule.steps=0", f"output_dir={folder / 'runs'}"]
    values = {"question": "Which rate?", "base": base, "search": section or {**SECTION, **changes}}
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture
def faked(monkeypatch):
    """Runs that are done when they have logged a quadratic, best at (0.3, 0.6); the numbers of those that were run."""
    monkeypatch.setattr(module, "is_done", lambda run_dir, cfg: (run_dir / "metrics.csv").is_file())
    made = []

    def runner(run_dir, overrides):
        given = dict(each.lstrip("+").split("=", 1) for each in overrides)
        x, y = float(given["optimizer.lr"]), float(given["ema.max_decay"])
        number = int(run_dir.name[5:8])
        made.append(number)
        if number in runner.killed:
            raise KeyboardInterrupt
        if number in runner.failing:
            return "out of memory"
        value = "nan" if number in runner.nan else repr((x - 0.3) ** 2 + (y - 0.6) ** 2)
        (run_dir / "metrics.csv").write_text(f"step,train/loss\n2,{value}\n")
        return None

    runner.killed, runner.failing, runner.nan, runner.made = set(), set(), set(), made
    return runner


def params(trials):
    return [trial.params for trial in trials]


def test_finds_the_best_of_a_known_quadratic(tmp_path, faked):
    trials = search(read_search(write(tmp_path / "study", trials=40)), faked)
    best = best_first(read_search(tmp_path / "study"), trials)[0]
    assert best.value < 0.01
    assert best.params["optimizer.lr"] == pytest.approx(0.3, abs=0.1)
    assert best.params["ema.max_decay"] == pytest.approx(0.6, abs=0.1)
    at_random = min(trial.value for trial in trials[:10])
    assert best.value < at_random


@pytest.mark.slow
def test_a_killed_search_proposes_the_same_as_an_undisturbed_one(tmp_path, faked):
    faked.nan, faked.failing = {3, 12}, {5}
    whole = search(read_search(write(tmp_path / "study", trials=16)), faked)
    assert [trial.number for trial in whole if trial.value is None] == [3, 5, 12]
    faked.made.clear()
    plan = read_search(write(tmp_path / "study", trials=16), (f"output_dir={tmp_path / 'other'}",))
    for number in (4, 13):
        faked.killed = {number}
        with pytest.raises(KeyboardInterrupt):
            search(plan, faked)
    faked.killed = set()
    assert params(search(plan, faked)) == params(whole)
    assert faked.made == [*range(5), *range(4, 14), *range(13, 16)], "no run is made twice"
    assert params(search(plan, faked)) == params(whole)
    assert len(faked.made) == 18


def test_trials_differ_and_another_seed_is_another_search(tmp_path, faked):
    first = search(read_search(write(tmp_path / "study", trials=6)), faked)
    assert len({repr(trial.params) for trial in first}) == 6
    other = search(read_search(write(tmp_path / "study", trials=6, seed=1)), faked)
    assert not any(trial in params(first) for trial in params(other))
    assert not {trial.run_dir for trial in first} & {trial.run_dir for trial in other}


def test_kinds_of_options(tmp_path, faked):
    space = {
        **SPACE,
        "optimizer.lr": {"low": "1e-5", "high": 1e-1, "log": True},
        "batch_size": {"low": 8, "high": 32, "step": 8},
        "schedule": ["linear", "cosine"],
    }
    trials = search(read_search(write(tmp_path / "study", space=space, trials=20)), faked)
    assert {trial.params["batch_size"] for trial in trials} == {8, 16, 24, 32}
    assert {trial.params["schedule"] for trial in trials} == {"linear", "cosine"}
    rates = sorted(trial.params["optimizer.lr"] for trial in trials)
    assert 1e-5 <= rates[0] < 1e-3 < rates[-1] <= 1e-1


@pytest.mark.slow
def test_the_highest_is_best_where_it_is_asked_for(tmp_path, faked):
    plan = read_search(write(tmp_path / "study", trials=30, direction="maximize"))
    best = best_first(plan, search(plan, faked))[0]
    assert best.value > 0.7, "the corner (1, 0), which is 0.85"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "search.trials: is 0; allowed: a whole number, at least 1"),
        ({"space": {}}, "search.space: must be given"),
        ({"value": None}, "search.value: must be given: a text"),
        ({"direction": "up"}, "search.direction: is 'up'; allowed: one of minimize, maximize"),
        ({"trails": 3}, "search.trails: no such option (did you mean trials?)"),
        ({"space": {"optimizer.lr": {"low": 1}}}, "search.space.optimizer.lr: has low; allowed: low and high"),
        ({"space": {"optimizer.lr": {"low": 1, "high": 1}}}, "goes from 1 to 1; allowed: numbers, low below high"),
        ({"space": {"optimizer.lr": {"low": 0, "high": 1, "log": True}}}, "allowed: log true where low is above 0"),
        ({"space": {"schedule": ["linear"]}}, "search.space.schedule: is ['linear']; allowed: low, high"),
        ({"space": {"seed": [0, 1]}}, "seed is set by the study; leave it out"),
    ],
)
def test_a_mistake_in_the_section_is_reported(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        read_search(write(tmp_path / "study", **changes))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"value": "val/loss"},
            "optimized_metric: is val/loss, which nothing logs; there is no validation: set "
            "trainer.val_check_interval, at most trainer.max_steps",
        ),
        ({"space": {"optimizer.rate": [1, 2]}}, "optimizer.rate: no such option"),
        ({"space": {"schedule": ["linear", "cosin"]}}, "schedule/cosin: there is no such option; allowed: cosine"),
        ({"space": {"batch_size": {"low": 0, "high": 8}}}, "batch_size: is 0; allowed: a whole number, at least 1"),
    ],
)
def test_a_mistake_in_a_trial_is_found_before_any_is_run(tmp_path, changes, message):
    folder = write(tmp_path / "study", **changes)
    result = call("study.__main__", str(folder), "search")
    assert result.status == 1
    assert message in result.err
    assert not (folder / "runs").exists()


@pytest.mark.slow
def test_real_runs(tmp_path):
    """Trials are ordinary runs, and the table has the best first."""
    space = {"optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}}
    folder = write(tmp_path / "study", space=space, trials=3)
    result = call("study.__main__", str(folder), "search")
    assert result.status == 0, result.err
    runs = sorted(path.name for path in (folder / "runs").iterdir() if not path.name.startswith("."))
    assert [name[:8] for name in runs] == ["trial000", "trial001", "trial002"]
    with (folder / "search.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = [float(row["train/loss"]) for row in rows]
    assert values == sorted(values)
    assert rows[0]["run"] in result.out
    for row in rows:
        given = json.loads((folder / "runs" / row["run"] / "trial.json").read_text())["params"]
        assert float(row["optimizer.lr"]) == given["optimizer.lr"]
    again = call("study.__main__", str(folder), "search")
    assert again.status == 0
    assert "from step" not in again.out


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("langevin.study.__main__.find_spec", lambda name: None)
    result = call("study.__main__", str(write(tmp_path / "study")), "search")
    assert result.status == 1
    assert result.err == "error: study search needs the package optuna: pip install 'langevin-diffusion[search]'\n"
