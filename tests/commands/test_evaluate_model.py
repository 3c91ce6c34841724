"""From a trained model to numbers, without images in between."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers.commands import ROOT, call, wait_for
from helpers.digits import digits
from helpers.processes import command

from langevin import interrupt
from langevin.content import read_content
from langevin.filling import LOCK

FID = ("metrics=[fid]", "metrics.fid.min_samples=2")
KID = ("metrics.kid.subset_size=20", "metrics.kid.subsets=5")
MEASURE = ("metrics=[class_accuracy,fid,kid]", "metrics.fid.min_samples=2", *KID)
QUICK = ("num_samples=40", "batch_size=8", "accelerator=cpu")


@pytest.fixture(scope="module")
def features(classifier):
    return "features=classifier", f"features.checkpoint={classifier}"


def evaluate(*overrides, status=0):
    result = call("evaluate", *overrides)
    assert result.status == status, result.err
    assert "Traceback" not in result.err
    return result


def report_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def measured(labelled, features, tmp_path_factory):
    """An evaluation that nothing disturbed."""
    out = tmp_path_factory.mktemp("measured")
    evaluate(f"checkpoint={labelled}", *features, *MEASURE, *QUICK, f"out={out}")
    return report_of(out)


def test_it_says_what_was_measured_and_how(measured, labelled):
    values = measured["metrics"]
    extractor = measured["protocol"]["features"]["extractor"]
    assert extractor.startswith("classifier-digits-")
    assert set(values) == {"class_accuracy", f"fd_{extractor}@40", f"kd_{extractor}@40", f"kd_std_{extractor}@40"}
    assert values[f"fd_{extractor}@40"] > 0
    assert measured["model"]["checkpoint"] == str(labelled / "checkpoints" / "last.ckpt")
    assert measured["model"]["data"] == read_content(labelled).sha256
    assert measured["reference"]["number"] == 1500
    protocol = measured["protocol"]
    assert protocol["num_samples"] == 40
    assert protocol["samples"]["evaluations"] == protocol["samples"]["sampler"]["steps"] == 2
    assert protocol["samples"]["seed"] == 0
    assert protocol["metrics"]["kid"]["settings"]["subsets"] == 5
    assert "min_samples" not in protocol["metrics"]["fid"]["settings"], "which changes no value"


def test_it_measures_what_sample_would_have_made(measured, labelled, features, tmp_path):
    made = call("sample", f"checkpoint={labelled}", f"out={tmp_path}", "num_samples=40", "batch_size=8")
    assert made.status == 0, made.err
    evaluate(f"samples={tmp_path}", "data=digits", *features, *MEASURE, *QUICK)
    again = report_of(tmp_path)
    assert again["metrics"] == measured["metrics"]
    assert again["protocol"] == measured["protocol"]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 3])
def test_the_number_of_processes_does_not_matter(devices, measured, labelled, features, tmp_path):
    options = f"checkpoint={labelled}", *features, *MEASURE, *QUICK, f"devices={devices}", f"out={tmp_path}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LANGEVIN_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "evaluate.py"), *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    again = report_of(tmp_path)
    assert again["metrics"] == pytest.approx(measured["metrics"], rel=1e-9)
    assert again["protocol"] == measured["protocol"]
    assert done.stdout.count("samples of step 6") == 1


@pytest.mark.parametrize("batch_size", [7, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 40))])
def test_the_batch_does_not_matter(batch_size, measured, labelled, features, tmp_path):
    place = f"checkpoint={labelled}", f"out={tmp_path}", f"batch_size={batch_size}"
    evaluate(*place, *features, *MEASURE, *(option for option in QUICK if "batch_size" not in option))
    again = report_of(tmp_path)
    assert again["metrics"] == pytest.approx(measured["metrics"], rel=1e-6), "networks compute in float32"
    assert again["protocol"] == measured["protocol"]


def measured_names(folder):
    return list(json.loads(next(folder.rglob("metrics.json")).read_text())["metrics"])


def test_into_the_run_and_one_folder_for_each_way(labelled, features, tmp_path, monkeypatch):
    """Of a sweep no evaluation takes another's place, and the same one again takes its own."""
    folder = labelled / "evaluations"
    for options in (["sampler.steps=1"], ["sampler.steps=3"], ["sampler.steps=3"], ["sampler=heun", "sampler.steps=2"]):
        evaluate(f"checkpoint={labelled}", *features, *FID, *QUICK, *options)
    assert len(list(folder.iterdir())) == 3, "and the samples are gone"
    assert all(path.name.startswith("step_00000006-") for path in folder.iterdir())

    refused = evaluate(f"compare={folder}", status=1)
    assert "samples.sampler.steps: 1 and 3 and 2" in refused.err or "samples.sampler.steps: " in refused.err
    assert "vary=[samples.sampler]" in refused.err
    table = evaluate(
        f"compare={folder}", "vary=[samples.sampler,samples.timestep_spacing]", f"out={tmp_path / 'table.csv'}"
    ).out
    place, head, *rows = table.splitlines()
    assert place == f"{folder}:"
    assert head.split() == ["place", "sampler", "sampler.steps", "timestep_spacing", "NFE", *measured_names(folder)]
    assert [row.split()[1:5] for row in rows] == [
        ["ddim", "1", "trailing", "1"],
        ["ddim", "3", "trailing", "3"],
        ["heun", "2", "inner_log_snr", "2"],
    ]
    monkeypatch.setenv("COLUMNS", "60")
    narrow = evaluate(f"compare={folder}", "vary=[samples.sampler,samples.timestep_spacing]").out.splitlines()
    assert max(map(len, narrow[1:-1])) <= 60
    assert [line.split()[-1] for line in narrow[2:-1]] == [row.split()[-1] for row in rows], "the value is there"
    assert narrow[-1].startswith("no room for ")
    assert (tmp_path / "table.csv").read_text().splitlines()[0].startswith("place,step,samples.sampler.")
    forced = evaluate(f"compare={folder}", "force=true").out
    assert "not comparable" in forced


def test_a_comparison_of_other_numbers_of_samples_is_refused(measured, labelled, features, tmp_path):
    evaluate(f"checkpoint={labelled}", "metrics=[class_accuracy]", *QUICK, "num_samples=20", f"out={tmp_path / 'a'}")
    evaluate(f"checkpoint={labelled}", "metrics=[class_accuracy]", *QUICK, f"out={tmp_path / 'b'}")
    refused = evaluate(f"compare=[{tmp_path / 'a'},{tmp_path / 'b'}]", status=1)
    assert "class_accuracy: num_samples: 20 and 40" in refused.err


def test_comparing_nothing_is_reported(tmp_path):
    assert "there is no metrics.json" in evaluate(f"compare={tmp_path}", status=1).err
    (tmp_path / "metrics.json").write_text('{"metrics": {"fid@3": 1}}')
    assert "is no metrics.json of langevin evaluate" in evaluate(f"compare={tmp_path}", status=1).err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_evaluation_that_was_ended_resumes_to_the_same_number(
    number, labelled, features, tmp_path, monkeypatch, made
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    steps = "sampler.steps=15"
    chosen = [f"checkpoint={labelled}", *features, *MEASURE, *QUICK, steps, "batch_size=2", "num_samples=24"]
    log = tmp_path / "log"
    process = command("evaluate", *chosen, f"out={tmp_path / 'killed'}", log=log)
    try:
        wait_for(lambda: len(list(labelled.glob("evaluations/.model-*/*.npz"))) >= 5, process, log)
    finally:
        process.send_signal(number)
        status = process.wait(120)
    assert status == (-number if number == signal.SIGKILL else interrupt.STATUS)
    # Who is killed removes nothing, and yet holds nobody off.
    left = [LOCK] if number == signal.SIGKILL else []
    assert [path.name for path in tmp_path.glob("killed/*")] == left
    kept = list(labelled.glob("evaluations/.model-*/*.npz"))
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # as a failing disk might leave it

    evaluate(*chosen, f"out={tmp_path / 'killed'}")
    assert sorted(set(made)) == sorted(made)
    assert len(made) == 24 - 2 * (len(kept) - 1), "what the killed one had made is not made again"
    assert not list(labelled.glob("evaluations/.model-*"))
    made.clear()
    evaluate(*chosen, f"out={tmp_path / 'undisturbed'}")
    assert len(made) == 24
    assert report_of(tmp_path / "killed") == report_of(tmp_path / "undisturbed")


def test_statistics_go_out_and_come_back(labelled, features, tmp_path):
    file = tmp_path / "digits.npz"
    output = evaluate(f"export={file}", "data=digits", *features, *FID).out
    assert "mu, sigma of 1500 images" in output
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["mu"].shape == arrays["sigma"].shape[:1] == arrays["sigma"].shape[1:]
    for name, reference in (("a", f"reference={file}"), ("b", "data=digits")):
        out = f"out={tmp_path / name}"
        evaluate(f"checkpoint={labelled}", *features, *FID, *QUICK, reference, out)
    a, b = (report_of(tmp_path / name) for name in "ab")
    assert a["metrics"] == pytest.approx(b["metrics"], rel=1e-12)
    assert a["protocol"]["reference"] != b["protocol"]["reference"], "a file's hash is not that of images"
    refused = evaluate(
        f"checkpoint={labelled}", *features, "metrics=[kid]", *KID, *QUICK, f"reference={file}", status=1
    )
    assert "holds statistics alone" in refused.err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([*FID, "num_samples=0"], "num_samples: is 0; allowed: a whole number, at least 1"),
        ([*FID, "labels=[11]"], "labels is [11]; allowed: whole numbers from 0 to 9"),
        ([*FID, "sampler.step=3"], "sampler.step: no such option (did you mean steps?)"),
        ([*FID, "sampler.steps=0"], "sampler.steps: is 0"),
        ([*FID, "reference=nowhere"], "reference=nowhere: there is no such file or folder"),
        (
            ["metrics=[fid]", "export=file.npz"],
            "give one of samples=FILE_OR_DIR, checkpoint=RUN_OR_FILE, ",
        ),
        ([*FID, "data.image_size=16"], "allowed with features.checkpoint="),
        (["metrics=[sfid]"], "metrics.sfid needs the extractor's spatial, but classifier-digits-"),
        (["metrics=[kid]"], "num_samples=40 is too few for metrics.kid.subset_size=1000"),
        ([], "metrics: choose at least one, such as metrics=[fid,kid] or likelihoods=[discrete_vlb], and not both"),
    ],
)
def test_a_mistake(overrides, words, labelled, features, tmp_path):
    before = sorted(labelled.rglob("*"))
    options = [*features, *QUICK, *overrides, f"out={tmp_path / 'out'}"]
    result = evaluate(f"checkpoint={labelled}", *options, status=1)
    assert words in result.err
    assert not (tmp_path / "out").exists()
    assert sorted(labelled.rglob("*")) == before


def test_sampling_is_not_of_images(tmp_path):
    np.savez(tmp_path / "samples.npz", arr_0=digits()[0][:4])
    result = evaluate(f"samples={tmp_path}", "data=digits", "metrics=[class_accuracy]", "sampler=heun", status=1)
    assert "sampler: goes with checkpoint=RUN_OR_FILE; leave it out" in result.err
