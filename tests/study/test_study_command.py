"""`python -m langevin.study`: runs that are trained, rerun, changed, corrupted."""

import json
import shutil

import pytest
import yaml
from scipy import stats
from study_helpers import MEASURED, QUIET, rows, saved, study, write

from langevin.sessions import FILE, sessions_of
from langevin.study.table import FILES, escaped

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A study of two arms and two seeds that has been run, and what that printed."""
    folder = write(tmp_path_factory.mktemp("first") / "rates")
    return folder, study(folder)


@pytest.fixture
def copied(first, tmp_path):
    """The same in a folder of its own."""
    shutil.copytree(first[0], tmp_path / "rates")
    return write(tmp_path / "rates")


def test_what_a_study_leaves(first):
    folder, result = first
    names = {path.name.rpartition("-")[0]: path for path in folder.glob("runs/*-*")}
    assert sorted(names) == ["fast-seed0", "fast-seed1", "slow-seed0", "slow-seed1"]
    assert f"{folder}: 4 runs in {folder / 'runs'}, 4 of them to train" in result.out
    assert "confounded" not in result.out

    table = rows(folder / "table.csv")
    assert [(row["rate"], row["seed"]) for row in table] == [
        (arm, seed) for arm in ("slow", "fast") for seed in ("0", "1")
    ]
    for row in table:
        run = names[f"{row['rate']}-seed{row['seed']}"]
        last = rows(run / "metrics.csv")[-1]
        assert last["step"] == "3"
        assert {key: float(row[key]) for key in ("train/loss", "eval/class_accuracy")} == {
            key: float(last[key]) for key in ("train/loss", "eval/class_accuracy")
        }
        assert row["protocol"] == last["eval/protocol"]
        assert row["folder"] == run.name
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert (config["seed"], config["optimizer"]["lr"]) == (
            int(row["seed"]),
            {"slow": 1e-4, "fast": 3e-2}[row["rate"]],
        )
        assert [each["code"] for each in sessions_of(run)] == [row["code"]]


def test_the_numbers_of_the_table(first):
    folder, _ = first
    values = {}
    for row in rows(folder / "table.csv"):
        values.setdefault(row["rate"], []).append(float(row["train/loss"]))
    lines = (folder / "table.md").read_text().splitlines()
    for arm, losses in values.items():
        low, high = stats.t.interval(0.95, 1, sum(losses) / 2, stats.sem(losses))
        row = f"| {arm} | {sum(losses) / 2:.4g} | {stats.tstd(losses):.2g} | {low:.4g} to {high:.4g} | 2 |"
        assert row in lines
    difference = stats.ttest_rel(values["fast"], values["slow"])
    low, high = difference.confidence_interval(0.95)
    reading = "no difference detected" if low <= 0 <= high else f"{'fast' if high < 0 else 'slow'} is better"
    mean = sum(values["fast"]) / 2 - sum(values["slow"]) / 2
    assert f"| rate | their mean | fast - slow | {mean:+.4g} | {low:+.4g} to {high:+.4g} | 2 | {reading} |" in lines
    assert "- Budget of each run: 3 steps of 8 images." in lines
    assert rf"slow & ${sum(values['slow']) / 2:.4g} \pm " in (folder / "table.tex").read_text()
    assert (folder / "results.png").read_bytes().startswith(b"\x89PNG")


def test_rerun_it_trains_nothing_and_makes_the_same_table(first):
    folder, _ = first
    before = saved(folder)
    tables = {name: (folder / name).read_bytes() for name in (*FILES, "results.png")}
    assert len(before) == 4
    again = study(folder)
    assert "4 runs in" in again.out
    assert "0 of them to train" in again.out
    assert saved(folder) == before
    assert {name: (folder / name).read_bytes() for name in tables} == tables


def test_only_the_arm_that_changed_is_trained_again(copied):
    before = saved(copied)
    folder = write(copied, factors={"rate": {"slow": "optimizer.lr=1e-4", "fast": "optimizer.lr=1e-2"}})
    assert "2 of them to train" in study(folder, "run").out
    after = saved(folder)
    assert {name: after[name] for name in before} == before
    assert sorted(name.rpartition("-")[0] for name in after.keys() - before.keys()) == ["fast-seed0", "fast-seed1"]
    study(folder, "table")
    assert {row["folder"] for row in rows(folder / "table.csv")} == {
        name for name in after if name.startswith("slow") or name not in before
    }


def test_what_is_measured_decides_too(copied):
    """A run does not say of another sampler than the one that the study names."""
    fewer = [text for text in (*QUIET, *MEASURED) if not text.startswith("sampler.steps")]
    folder = write(copied, base=[*fewer, "trainer.max_steps=3", "lr_schedule.steps=0", f"output_dir={copied / 'runs'}"])
    result = study(folder, "table", status=1)
    assert "nothing of the study is done yet; run it first:" in result.err
    assert result.err.count(": missing") == 4


@pytest.mark.slow
def test_more_steps_go_on_from_there_and_fewer_are_refused(copied):
    result = study(copied, "run", "--", "trainer.max_steps=4")
    assert result.out.count("from step 3 to 4") == 4
    result = study(copied, "table", status=1)
    assert "stands at step 4, beyond the study's trainer.max_steps=3; set that to 4, or remove the folder" in result.err
    study(copied, "table", "--out", str(copied / "longer"), "--", "trainer.max_steps=4")
    assert "4 steps of 8 images" in (copied / "longer" / "table.md").read_text()


def test_what_is_missing_is_reported_and_the_rest_makes_a_table(copied):
    gone = next(copied.glob("runs/fast-seed1-*"))
    shutil.rmtree(gone)
    result = study(copied, "table")
    assert f"missing: {gone.name}: missing" in result.out
    text = (copied / "table.md").read_text()
    assert "- **Missing: 1.**" in text
    assert f"  - {gone.name}: missing" in text
    assert text.count("| one seed: no interval | 1 |") == 4, "of the arm and of the difference, for both measures"
    assert len(rows(copied / "table.csv")) == 3


def test_a_run_that_fails_does_not_stop_the_others(tmp_path):
    """A file that is none shows only when the data is opened."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_text("no image")
    arms = {
        "bad": ["data=image_folder", f"data.path={tmp_path / 'images'}", "data.image_size=8"],
        "good": "data=digits",
    }
    base = [*QUIET, "trainer.max_steps=1", f"output_dir={tmp_path / 'runs'}"]
    folder = write(tmp_path, factors={"data": arms}, base=base, seeds=[0], measures={"train/loss": "down"})
    result = study(folder, status=1)
    assert "not done: " in result.err
    assert "bad-seed0-" in result.err.partition("not done: ")[2]
    assert "a.png" in result.err.partition("not done: ")[2]
    assert "Traceback" not in result.err
    assert [row["data"] for row in rows(folder / "table.csv")] == ["good"]


def change(path, **values):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | values))


def test_values_of_different_protocols_are_no_columns_of_one_table(copied):
    run = next(copied.glob("runs/fast-seed1-*"))
    (protocol,) = run.glob("evaluations/protocol-*.json")
    before = (copied / "table.md").read_bytes()
    change(protocol, num_samples=50)
    result = study(copied, "table", status=1)
    assert "these values were computed in different ways" in result.err
    assert "eval/class_accuracy: num_samples: 20 in " in result.err
    assert f"and 50 in {run}" in result.err
    assert (copied / "table.md").read_bytes() == before
    write(copied, measures={"train/loss": "down"})
    study(copied, "table")
    protocol.unlink()
    assert f"missing: {run.name}: {protocol}, by which" in study(copied, "table").out
    assert len(rows(copied / "table.csv")) == 3


def test_runs_of_different_code_are_marked(copied):
    sessions = next(copied.glob("runs/fast-seed1-*")) / FILE
    sessions.write_text('[{"code": "0.0.1 abc"}]')
    study(copied, "table")
    (line,) = (line for line in (copied / "table.md").read_text().splitlines() if line.startswith("- Code: "))
    assert "0.0.1 abc" in line
    assert line.endswith("**The runs are of different code.**")


def test_a_folder_that_holds_another_run_is_refused(copied):
    config = next(copied.glob("runs/fast-seed1-*")) / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("lr: 0.03", "lr: 0.05"))
    for task in ("run", "table"):
        result = study(copied, task, status=1)
        assert f"{config.parent} holds a different run from the study's; remove the folder:" in result.err
        assert "optimizer.lr: 0.05 in the run, 0.03 in the study" in result.err
    config.write_text(text.replace("seed: 1", "seed: 7"))
    assert "seed: 7 in the run, 1 in the study" in study(copied, "table", status=1).err


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("a: [", id="cut"),
        pytest.param("a: &a [*a]", id="cyclic", marks=pytest.mark.slow),
        pytest.param("- 1", id="list", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_run_is_missing_and_the_others_make_a_table(copied, content):
    before = saved(copied)
    config = next(copied.glob("runs/fast-seed1-*")) / "config.yaml"
    config.write_text(content)
    result = study(copied, status=1)
    assert f"{config} cannot be read (" in result.err.partition("not done: ")[2]
    assert f"missing: {config.parent.name}: {config} cannot be read (" in result.out
    assert "0 of them to train" in result.out
    assert saved(copied) == before
    assert config.read_text() == content
    assert len(rows(copied / "table.csv")) == 3


def test_a_measure_that_no_run_has(copied):
    write(copied, measures={"eval/fid_*": "down"})
    result = study(copied, "table", status=1).err
    assert "measures.eval/fid_*: is not measured in " in result
    assert "allowed: one of eval/class_accuracy, train/" in result
    write(copied, measures={"eval/cl*": "up"})
    study(copied, "table")
    assert "## eval/class_accuracy (higher is better)" in (copied / "table.md").read_text()


def test_latex_takes_every_text():
    text = "\\ { } $ & # _ % ~ ^ [ *\n\x1b"
    assert escaped(text) == (
        r"\textbackslash{} \{ \} \$ \& \# \_ \% \textasciitilde{} \textasciicircum{} {[} {*}"
        r"\textbackslash{}n\textbackslash{}x1b"
    )
