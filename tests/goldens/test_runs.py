"""Runs that an older commit recorded are still read by every command, to the values that it had."""

import csv
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import UNet2DModel
from helpers.commands import call

from goldens.curves import COLUMNS
from goldens.record import EVALUATE, FEATURES, IMPORTED, RUNS, SAMPLE, TRAINED, outputs_of
from goldens.resumed import CURVES as RESUMED_CURVES
from goldens.resumed import resume
from langevin.checkpoint import read_checkpoint
from langevin.report.__main__ import report
from langevin.runs import find_runs

NAMES = sorted(path.name.removesuffix(".tar.xz") for path in RUNS.glob("*.tar.xz"))
MODELS = [name for name in NAMES if name != "classifier"]
TRAINABLE = [name for name in NAMES if name != IMPORTED]
QUICK = ("edm", "guided")


def slow_but(quick, names):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def run(command, *overrides):
    result = call(command, *overrides)
    assert result.status == 0, result.err
    return result


def last_values(path):
    """The last number of each column of a metrics.csv."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    return {name: float(row[name]) for row in rows for name in row if row[name] and not name.startswith("eval/")}


def test_there_is_a_run_of_each_kind():
    assert {*TRAINED, IMPORTED, "ddpm", "dpm2015", "edm", "flow", "iddpm", "ve_sde", "vp_sde"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_puts_out_what_it_did(name, golden_folder):
    recorded = np.load(golden_folder / "values" / name / "outputs.npy")
    outputs = outputs_of(golden_folder / "runs" / name)
    assert np.abs(recorded).max() > 1e-3, "which a network of zeros would match"
    np.testing.assert_allclose(outputs, recorded, rtol=0, atol=1e-5 * np.abs(recorded).max())


def test_all_are_listed_with_their_values(golden_folder):
    (runs,) = find_runs(golden_folder / "runs").values()
    (imported,) = (each for each in runs if each.name == IMPORTED)
    assert imported.state == "imported"
    assert imported.note.startswith("model=unet ")
    runs.remove(imported)
    assert sorted(each.name for each in runs) == TRAINABLE
    for each in runs:
        values = last_values(golden_folder / "runs" / each.name / "metrics.csv")
        assert (each.state, each.note, each.step) == ("done", "", each.max_steps), each.name
        speed = values.pop("train/images_per_second", None)
        assert each.images_per_second == speed
        del values["step"]
        assert {name: value.value for name, value in each.metrics.items()} == values


@pytest.mark.parametrize("name", slow_but(QUICK, MODELS))
def test_it_is_sampled(name, golden, tmp_path):
    run_dir = golden(name).run
    run("sample", f"checkpoint={run_dir}", *SAMPLE, f"out={tmp_path / 'out'}")
    made, recorded = (np.load(place / "samples.npz") for place in (tmp_path / "out", run_dir / "generated"))
    assert made["arr_0"].shape == recorded["arr_0"].shape
    levels = np.abs(made["arr_0"].astype(int) - recorded["arr_0"])
    assert (levels <= 1).mean() >= 0.999, levels.max()
    assert ("arr_1" in made) == ("arr_1" in recorded)
    if "arr_1" in made:
        assert made["arr_1"].tolist() == recorded["arr_1"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_it_is_evaluated_and_compared(name, golden, golden_folder, tmp_path):
    """Values of today and those that were recorded are columns of one table: their protocols are equal."""
    run_dir = golden(name).run
    (before,) = run_dir.glob("evaluations/step_*/metrics.json")
    features = FEATURES, f"features.checkpoint={golden_folder / 'runs' / 'classifier'}"
    data = ("data=digits",) if name == IMPORTED else ()
    run("evaluate", f"checkpoint={run_dir}", *EVALUATE, *features, *data, f"out={tmp_path / 'out'}")
    now = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert now["metrics"] == pytest.approx(json.loads(before.read_text())["metrics"], rel=1e-2)
    place, head, *rows = run("evaluate", f"compare=[{before.parent},{tmp_path / 'out'}]").out.splitlines()
    assert place == f"{tmp_path}:"
    assert head.split() == ["place", *now["metrics"]], "no setting differs"
    assert [row.split()[0] for row in rows] == [str(before.parent.relative_to(tmp_path)), "out"]


@pytest.mark.parametrize("name", slow_but(QUICK, MODELS))
def test_its_weights_are_exported(name, golden, tmp_path):
    run_dir, out = golden(name).run, tmp_path / "weights.safetensors"
    run("convert", f"export={run_dir}", f"out={out}")
    exported = safetensors.torch.load_file(out)
    state = read_checkpoint(run_dir / "checkpoints" / "last.ckpt")["state_dict"]
    assert len(exported) == sum(weight.startswith("ema.network.") for weight in state)
    assert all(torch.equal(exported[weight], state[f"ema.network.{weight}"]) for weight in exported)


@pytest.mark.slow
def test_an_imported_model_goes_back_to_diffusers(golden, tmp_path):
    run_dir = golden(IMPORTED).run
    run("convert", f"export={run_dir}", f"out={tmp_path / 'out'}")
    network = UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet")
    assert sum(weight.numel() for weight in network.parameters()) > 1e6
    state = read_checkpoint(run_dir / "checkpoints" / "last.ckpt")["state_dict"]
    assert torch.equal(network.conv_in.weight, state["ema.network.first.weight"])


def test_a_report_shows_all(golden_folder, tmp_path):
    out = tmp_path / "report.html"
    assert f"{len(TRAINABLE) + 1} runs" in report([golden_folder / "runs"], out, None, [])
    page = out.read_text()
    for name in TRAINABLE:
        assert f'"{name}"' in page
        assert str(last_values(golden_folder / "runs" / name / "metrics.csv")["val/loss"])[:6] in page


@pytest.mark.parametrize("name", slow_but(QUICK, TRAINABLE))
def test_it_is_resumed(name, golden):
    run_dir, values = golden(name)
    before = (run_dir / "metrics.csv").read_text()
    out, curve = resume(run_dir)
    assert f"{name} does not record which data it was trained on" in out
    assert out.count(f"{name}: random numbers of training are drawn otherwise since it was saved") == 1
    with (values / "resumed.csv").open(newline="") as old, (run_dir / "metrics.csv").open(newline="") as new:
        expected, rows = list(csv.DictReader(old)), list(csv.DictReader(new))
    assert (run_dir / "metrics.csv").read_text().startswith(before), "what was logged stays"
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    recorded = json.loads(RESUMED_CURVES.read_text())[name]
    for column in COLUMNS:
        assert [bool(row[column]) for row in rows] == [bool(row[column]) for row in expected]
        assert curve[column] == pytest.approx(recorded[column], rel=1e-3), column
