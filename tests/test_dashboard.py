"""What W&B is asked to show, as far as that can be checked without W&B: by the specification its own library makes."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from report.report_helpers import make_run

from langevin import dashboard
from langevin.dashboard import STEP, TRAINING, DashboardContent, content_of, main, report, sections, workspace

pytestmark = pytest.mark.skipif(
    find_spec("wandb_workspaces") is None, reason="pip install 'langevin-diffusion[dashboard]'"
)
METRICS = ("eval/fid@50", "eval/inception_score_mean@50", "val/bits_per_dim")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    for seed, rate in enumerate((1e-3, 1e-4)):
        row = {"step": 50, "train/loss": 1, "val/loss": 1, "train/mse": 1, "val/mse": 1, "train/images_per_second": 9}
        row |= dict.fromkeys(METRICS, 2.0)
        images = {("samples", 50): np.zeros((8, 8, 3), np.uint8), ("trajectory", 50): np.zeros((8, 8, 3), np.uint8)}
        schedule = ("schedule=cosine", "schedule=linear")[seed]
        make_run(folder, f"run{seed}", schedule, change={"optimizer.lr": rate}, rows=[row], images=images)
    return folder


def panels(spec):
    """Its panels by the titles of their sections."""
    found = spec["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in found}


@pytest.fixture(scope="module")
def spec(folder):
    view = workspace(content_of(folder), "team", "digits", "Schedules")._to_model()
    return json.loads(view.model_dump_json(by_alias=True))


def test_what_the_runs_tell(folder):
    content = content_of(folder)
    assert content.metrics == METRICS
    assert content.images == ("samples", "trajectory")
    assert {"optimizer.lr", "schedule._target_"} <= content.varied.keys()
    assert content.varied["optimizer.lr"] == "lr"


def test_the_workspace_is_where_it_was_asked_for(spec):
    assert (spec["entity"], spec["project"], spec["displayName"]) == ("team", "digits", "Schedules")


def test_every_value_has_its_curve_against_the_steps(spec):
    curves = [panel["config"] for part in panels(spec).values() for panel in part if "Line Plot" in panel["viewType"]]
    assert {curve["xAxis"] for curve in curves} == {STEP}
    drawn = [curve["metrics"] for curve in curves]
    assert sorted(drawn) == sorted([[name] for name in (*METRICS, *TRAINING, "train/images_per_second")])


def test_samples_are_shown(spec):
    assert [panel["config"]["mediaKeys"] for panel in panels(spec)["Samples"]] == [["samples"], ["trajectory"]]


def test_a_sweep_has_an_axis_for_each_option_and_metric(spec):
    (panel,) = panels(spec)["Sweep"]
    axes = [column["accessor"] for column in panel["config"]["columns"]]
    assert [axis for axis in axes if axis.startswith("summary:")] == [f"summary:{name}" for name in METRICS]
    assert {"config:optimizer.value.lr", "config:schedule.value._target_"} <= set(axes)


def test_what_there_is_not_has_no_panel():
    assert list(sections(DashboardContent((), {}, ()))) == ["Training", "Speed"]


def test_their_library_reads_it_back(folder):
    view = workspace(content_of(folder), "team", "digits", "Schedules")._to_model()
    from wandb_workspaces.workspaces import Workspace  # takes seconds

    again = Workspace._from_model(view)
    assert [section.name for section in again.sections] == ["Evaluation", "Samples", "Training", "Speed", "Sweep"]


def test_the_report_has_the_same_panels(folder):
    content = content_of(folder)
    blocks = report(content, "team", "digits", "Schedules").blocks
    grids = [len(block.panels) for block in blocks if hasattr(block, "panels")]
    assert grids == [len(part) for part in sections(content).values()]


@pytest.fixture
def printed(monkeypatch, tmp_path, capsys):
    """What the command says to mistakes; W&B knows nobody here."""
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")

    def say(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([*map(str, arguments), "--project", "digits"])
        assert stop.value.code == 1
        return capsys.readouterr().err

    return say


def test_mistakes(printed, folder, tmp_path):
    assert f"error: {tmp_path / 'none'} is no folder" in printed(tmp_path / "none")
    assert "holds no runs; train some first, with loggers=wandb" in printed(tmp_path)
    assert "error: W&B did not take the dashboard of project digits: " in printed(folder, "--entity", "team")


def test_it_is_saved_and_its_address_printed(monkeypatch, folder, capsys):
    class Saved:
        url = "https://wandb.example/team/digits"

        def __init__(self, *given):
            self.given = given

        def save(self):
            requested.append(self.given)
            return self

    requested = []
    monkeypatch.setattr(dashboard, "workspace", Saved)
    monkeypatch.setattr(dashboard, "report", Saved)
    main([str(folder), "--project", "digits", "--entity", "team"])
    assert capsys.readouterr().out.splitlines() == [Saved.url] * 2
    assert [given[1:] for given in requested] == [("team", "digits", "Langevin")] * 2
