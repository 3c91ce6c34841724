"""Values of runs: together where `evaluate.py compare=` puts them into one table, else apart."""

import json

import pytest
from helpers.commands import call
from report_helpers import evaluated, make_protocol, protocol_in_training

from langevin.logged import Logged
from langevin.report.values import evaluations, grouped, points_of

CHANGES = {
    "nothing": {},
    "steps": {"steps": 50},
    "sampler": {"sampler": "heun.Heun"},
    "reference": {"reference": "4567"},
}


def values_of(*runs, vary=()):
    return grouped([points_of(run, Logged({}, {}))[0] for run in runs], vary)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("vary", [(), ("samples.sampler",), ("samples.sampler", "reference"), ("samples",)], ids=str)
def test_values_are_kept_apart_where_compare_refuses(tmp_path, change, vary):
    runs = [tmp_path / "a", tmp_path / "b"]
    evaluated(runs[0] / "x", 3.0, make_protocol())
    evaluated(runs[1] / "x", 4.0, make_protocol(**CHANGES[change]))
    refused = call("evaluate", f"compare={tmp_path}", f"vary=[{','.join(vary)}]").status != 0
    groups, reasons = values_of(*runs, vary=vary)
    assert len(groups) == 1 + refused
    assert len(reasons) == refused
    found = [(series["run"], series["points"]) for group in groups for series in group["series"]]
    assert found == [(0, [(100, 3.0, "x/metrics.json")]), (1, [(100, 4.0, "x/metrics.json")])]


def test_it_is_reported_what_keeps_values_apart(tmp_path):
    evaluated(tmp_path / "a", 3.0, make_protocol())
    evaluated(tmp_path / "b", 4.0, make_protocol(steps=50))
    evaluated(tmp_path / "c", 5.0, make_protocol(steps=50, name="fid@60"), name="fid@60")
    groups, (reason,) = values_of(tmp_path)
    assert [(group["name"], group["protocol"]) for group in groups] == [
        ("fid@50", "steps=20"),
        ("fid@50", "steps=50"),
        ("fid@60", ""),
    ]
    why = ["samples.sampler.steps: 20 or 50", "samples.evaluations: 20 or 50"]
    assert reason == {"name": "fid@50", "ways": 2, "why": why}


def test_a_run_measured_in_two_ways_that_are_meant(tmp_path):
    for steps in (20, 50):
        for step in (100, 50):
            evaluated(tmp_path / f"{steps}-{step}", steps + step, make_protocol(steps=steps), step)
    (group,), reasons = values_of(tmp_path, vary=["samples.sampler"])
    assert not reasons
    assert group["varied"] == ["samples.sampler.steps", "samples.evaluations"]
    assert {series["settings"]: [point[:2] for point in series["points"]] for series in group["series"]} == {
        "steps=20": [(50, 70), (100, 120)],
        "steps=50": [(50, 100), (100, 150)],
    }


def test_titles_are_distinct_whatever_differs(tmp_path):
    """Also by the fifth of five differences."""
    for number in range(3):
        record = make_protocol(
            steps=20 + (number > 0), sampler="heun.Heun" if number else "ddim.DDIM", reference=number
        )
        record["samples"] |= {"seed": number, "precision": f"p{number > 0}", "labels": [1] * number}
        evaluated(tmp_path / str(number), 1.0, record)
    groups, _ = values_of(tmp_path)
    assert [group["protocol"] for group in groups] == [
        f"reference={number} sampler={name} steps={steps} seed={number} precision={precision} labels={labels}"
        for number, (name, steps, precision, labels) in enumerate(
            [("ddim", 20, "pFalse", "[]"), ("heun", 21, "pTrue", "[1]"), ("heun", 21, "pTrue", "[1,1]")]
        )
    ]


def test_a_sweep_of_evaluations_is_a_table(tmp_path):
    """Sorted by the settings, numbers by their size; of those in training the last alone."""
    run, other = tmp_path / "run", tmp_path / "other"
    for steps, sampler in ((100, "ddim.DDIM"), (20, "ddim.DDIM"), (20, "heun.Heun")):
        record = make_protocol(steps=steps, sampler=sampler)
        evaluated(run / "evaluations" / f"{sampler}-{steps}", steps / 10, record)
    evaluated(other / "x", 7.0, make_protocol(name="fid@60"), name="fid@60")
    name = protocol_in_training(other, make_protocol())
    logged = Logged({"eval/fid@50": [(50, 9.0), (100, 8.0)]}, {50: name, 100: name})
    found = evaluations([points_of(run, Logged({}, {}))[0], points_of(other, logged)[0]])
    assert (found["heads"], found["names"]) == (["sampler", "sampler.steps", "NFE"], ["fid@50", "fid@60"])
    assert [[row["run"], row["step"], row["source"], row["settings"], row["values"]] for row in found["rows"]] == [
        [0, 100, "ddim.DDIM-20", ["ddim", "20", "20"], {"fid@50": 2.0}],
        [0, 100, "ddim.DDIM-100", ["ddim", "100", "100"], {"fid@50": 10.0}],
        [0, 100, "heun.Heun-20", ["heun", "20", "20"], {"fid@50": 2.0}],
        [1, 100, "in training", ["ddim", "20", "20"], {"fid@50": 8.0}],
        [1, 100, "x", ["ddim", "20", "20"], {"fid@60": 7.0}],
    ]


def test_values_of_training_and_of_evaluate_py_stand_together(tmp_path):
    evaluated(tmp_path / "evaluations" / "x", 3.0, make_protocol(), step=200)
    evaluated(tmp_path / "evaluations" / "y", 2.0, make_protocol(), step=None)
    name = protocol_in_training(tmp_path, make_protocol())
    points, faults = points_of(tmp_path, Logged({"eval/fid@50": [(100, 9.0)], "val/loss": [(100, 1.0)]}, {100: name}))
    assert not faults
    (group,), _ = grouped([points], [])
    assert group["series"][0]["points"] == [
        (None, 2.0, "evaluations/y/metrics.json"),
        (100, 9.0, "in training"),
        (200, 3.0, "evaluations/x/metrics.json"),
    ]


def test_values_whose_protocol_is_lost_stand_alone(tmp_path):
    lost = [Logged({"eval/fid@50": [(100, 9.0)]}, {100: name} if name else {}) for name in ("abc", "abc", "def", "")]
    points = [points_of(tmp_path / str(run), logged)[0] for run, logged in enumerate([*lost, lost[-1]])]
    evaluated(tmp_path / "5", 3.0, make_protocol())
    groups, (reason,) = grouped([*points, points_of(tmp_path / "5", Logged({}, {}))[0]], [])
    # Those of one name were computed in the same way, whichever it was.
    assert [[series["run"] for series in group["series"]] for group in groups] == [[0, 1], [2], [3], [4], [5]]
    assert [group["protocol"] for group in groups] == [
        "protocol not recorded",
        *(f"protocol not recorded, {number}" for number in (2, 3, 4)),
        "",
    ]
    assert reason["why"] == ["how some of them were computed is not recorded"]


@pytest.mark.parametrize("content", ["", "[]", '{"metrics": {"fid@50": 1}}', '{"metrics": 3, "protocol": {}}'])
def test_a_foreign_file_is_reported(tmp_path, content):
    evaluated(tmp_path / "good", float("nan"), make_protocol())
    (tmp_path / "metrics.json").write_text(content)
    points, (fault,) = points_of(tmp_path, Logged({}, {}))
    assert [point.value for point in points] == [None]
    assert f"{tmp_path / 'metrics.json'} is no metrics.json of evaluate.py" in fault


def test_a_damaged_protocol_is_none(tmp_path):
    name = protocol_in_training(tmp_path, make_protocol())
    path = tmp_path / "evaluations" / f"protocol-{name}.json"
    for content in (path.read_text()[:50], "[1]", json.dumps({"metrics": 3})):
        path.write_text(content)
        (point,), _ = points_of(tmp_path, Logged({"eval/fid@50": [(100, 9.0)]}, {100: name}))
        assert point.protocol is None
