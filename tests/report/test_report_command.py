"""`python -m langevin.report`: what it refuses, what it takes, what it writes."""

import fcntl
import json
import os
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.commands import TINY, call
from report_helpers import make_run

from langevin.report import __main__ as command
from langevin.report.page import HERE


def report(capsys, monkeypatch, *arguments, status=0):
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    if status:
        with pytest.raises(SystemExit) as end:
            command.main()
        assert end.value.code == status
        out, err = capsys.readouterr()
        assert not out
        assert err.startswith("error: ")
        return err
    command.main()
    return capsys.readouterr().out


def test_each_config_is_parsed_once_and_no_checkpoint_loaded(capsys, monkeypatch, tmp_path):
    for seed in range(4):
        make_run(tmp_path / "runs", f"run{seed}", change={"seed": seed}, step=1)
    parsed, load = [], yaml.load
    monkeypatch.setattr(yaml, "load", lambda text, loader: parsed.append(text) or load(text, loader))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a checkpoint was loaded"))
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("the directory of a checkpoint was read"))
    report(capsys, monkeypatch, tmp_path / "runs", "--out", tmp_path / "report.html")
    assert len(set(parsed)) == len(parsed) == 4


class Content(HTMLParser):
    """Finds the page's title and the data in it."""

    def __init__(self, page):
        super().__init__()
        self.found = {}
        self._tags = ["document"]
        self.feed(page.read_text())
        self.data = json.loads(self.found["content"])

    def handle_starttag(self, tag, attributes):
        self._tags.append(dict(attributes).get("id", tag))

    def handle_data(self, data):
        self.found.setdefault(self._tags[-1], data)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "report.html"


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "runs", "run", rows=[{"step": 1, "train/loss": 0.5}], step=1)


def test_a_run_that_was_trained(capsys, monkeypatch, tmp_path, out):
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path / "cache"))
    options = ("trainer.val_check_interval=2", "trainer.limit_val_batches=1", "callbacks.progress.every_n_steps=1")
    evaluation = ("metrics=[class_accuracy]", "evaluation.num_samples=10", "evaluation.batch_size=10")
    result = call("train", "experiment=digits", *TINY, *options, *evaluation, f"output_dir={tmp_path}", "name=run")
    assert result.status == 0, result.err
    assert report(capsys, monkeypatch, tmp_path / "run", "--out", out).startswith(f"{out}: 1 run, ")
    page = Content(out)
    assert page.found["title"] == "run"
    (shown_run,) = page.data["runs"]
    assert (shown_run["state"], shown_run["step"], shown_run["max_steps"], shown_run["batch_size"]) == ("done", 2, 2, 8)
    assert {"train/loss", "val/loss", "train/grad_norm", "train/learning_rate", "train/images_per_second"} <= {
        curve["name"] for curve in page.data["curves"]
    }
    (group,) = page.data["groups"]
    assert (group["name"], group["protocol"]) == ("class_accuracy", "")
    assert [len(kind["steps"]) for kind in page.data["images"]] == [1]
    assert len(page.data["png"]) == 1
    assert not page.data["faults"]


def test_mistakes(capsys, monkeypatch, tmp_path, run, out):
    (tmp_path / "empty").mkdir()
    mistakes = {
        (tmp_path / "nowhere",): "nowhere is not a folder",
        (run / "config.yaml",): "config.yaml is not a folder",
        (tmp_path / "empty",): "empty is not a run and holds none",
        (run, run): "is named twice",
        (run, run.parent): "is named twice",
        (run, "--out", tmp_path / "no" / "report.html"): "there is no such folder",
        (run, "--out", tmp_path): "is a folder",
        (run, "--grids", "0"): "--grids 0: allowed: a whole number, at least 1",
    }
    for arguments, message in mistakes.items():
        output = report(capsys, monkeypatch, *arguments, *([] if "--out" in arguments else ["--out", out]), status=1)
        assert message in output
        assert output.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "runs"]
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert "pip install 'langevin-diffusion[report]'" in report(capsys, monkeypatch, run, "--out", out, status=1)


def test_a_link_to_a_run_is_the_run(capsys, monkeypatch, tmp_path, run, out):
    (tmp_path / "latest").symlink_to(run)
    report(capsys, monkeypatch, tmp_path / "latest", "--out", out)
    assert Content(out).data["runs"][0]["folder"] == str(run)
    assert "is named twice" in report(capsys, monkeypatch, run, tmp_path / "latest", "--out", out, status=1)


def test_the_old_page_stays_where_the_new_one_cannot_be_written(capsys, monkeypatch, run, out):
    report(capsys, monkeypatch, run, "--out", out)
    before = out.read_bytes()

    def full(*paths):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert "No space left on device" in report(capsys, monkeypatch, run, "--out", out, status=1)
    assert out.read_bytes() == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["report.html", "runs"]


def test_runs_of_which_little_is_there(capsys, monkeypatch, tmp_path, out):
    folder = tmp_path / "runs"
    make_run(folder, "begun")
    cut = make_run(folder, "cut", rows=[{"step": s, "train/loss": "nan" if s == 2 else s} for s in (1, 2, 3, 4)])
    (cut / "metrics.csv").write_bytes((cut / "metrics.csv").read_bytes()[:-3])
    damaged = make_run(folder, "damaged", rows=[{"step": 1, "train/loss": 1.0}])
    (damaged / "config.yaml").write_text("trainer: {")
    going = make_run(folder, "going", rows=[{"step": 1, "train/loss": 1.0}])
    with (going / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        report(capsys, monkeypatch, folder, "--out", out)
    data = Content(out).data
    assert [(run["name"], run["state"], run["step"]) for run in data["runs"]] == [
        ("begun", "unfinished", 0),
        ("cut", "unfinished", 3),
        ("damaged", "failed", 1),
        ("going", "running", 1),
    ]
    (loss,) = data["curves"]
    assert [curve and curve["y"] for curve in loss["runs"]] == [None, [1, None, 3], [1], [1]]
    assert data["runs"][2]["batch_size"] is None


def test_a_spoilt_run_is_reported_and_the_others_are_shown(capsys, monkeypatch, tmp_path, out):
    folder, rows = tmp_path / "runs", [{"step": 1, "train/loss": 0.5}]
    runs = {name: make_run(folder, name, rows=rows) for name in ("cyclic", "good", "great", "list", "long", "zeros")}
    (runs["cyclic"] / "config.yaml").write_text("trainer: {max_steps: 2}\na: &a [*a]\n")
    (runs["great"] / "metrics.json").write_text(
        f'{{"metrics": {{"fid": 1{"0" * 400}}}, "model": {{"step": 1{"0" * 400}}}, "protocol": {{"metrics": {{}}}}}}'
    )
    (runs["great"] / "sessions.json").write_text(f'[{{"seconds": 1{"0" * 400}}}, {{"seconds": 1e300}}]')
    (runs["list"] / "metrics.json").write_text("[1]")
    (runs["list"] / "sessions.json").write_text("[" * 100_000)
    for name, row in (("long", b"9" * 5000 + b",1\n"), ("zeros", bytes(200) + b"\n")):
        with (runs[name] / "metrics.csv").open("ab") as file:
            file.write(row)
    os.utime(runs["zeros"] / "metrics.csv", (1e12, 1e12))  # beyond the year 9999
    report(capsys, monkeypatch, folder, "--out", out)
    data = Content(out).data
    assert [run["name"] for run in data["runs"]] == sorted(runs)
    assert [run["state"] for run in data["runs"]] == ["failed", *["unfinished"] * 5]
    assert data["runs"][0]["note"] == "config.yaml is damaged: it is nested without end"
    (loss,) = data["curves"]
    assert [curve["y"] for curve in loss["runs"]] == [[0.5]] * 6
    for place in (
        "great/metrics.json is no",
        "list/metrics.json is no",
        "long/metrics.csv: not",
        "zeros/metrics.csv: not",
    ):
        assert any(place in fault for fault in data["faults"]), place
    assert len(data["faults"]) == 4


def test_names_in_several_folders(capsys, monkeypatch, tmp_path, out):
    runs = [make_run(tmp_path / folder, "run", change={"seed": seed}) for seed, folder in enumerate("ab")]
    report(capsys, monkeypatch, *runs, "--out", out)
    page = Content(out)
    assert [run["name"] for run in page.data["runs"]] == ["a/run", "b/run"]
    assert [run["label"] for run in page.data["runs"]] == ["seed=0", "seed=1"]
    assert page.found["title"] == "2 runs"


@pytest.mark.slow
def test_eight_runs_with_many_images_stay_below_10_mb(capsys, monkeypatch, tmp_path, out):
    """Images that cannot be compressed: 64 of CIFAR-10's size a grid, at eight steps; and long curves."""
    generator = np.random.default_rng(0)
    for seed in range(8):
        images = {("samples", step): generator.integers(0, 256, (270, 340, 3), dtype=np.uint8) for step in range(8)}
        rows = [
            {"step": step, **{f"train/{name}": generator.normal() for name in ("loss", "mse", "grad_norm", "rate")}}
            for step in range(1, 1501)
        ]
        make_run(tmp_path / "runs", f"run{seed}", change={"seed": seed}, rows=rows, images=images)
    output = report(capsys, monkeypatch, tmp_path / "runs", "--out", out)
    assert 8_000_000 < out.stat().st_size < 10_000_000
    assert output == f"{out}: 8 runs, {out.stat().st_size / 1e6:.1f} MB\n"
    (samples,) = Content(out).data["images"]
    assert 1 < len(samples["steps"]) < samples["of"] == 8
    report(capsys, monkeypatch, tmp_path / "runs", "--out", out, "--grids", 1)
    (samples,) = Content(out).data["images"]
    assert samples["steps"] == [7]
    assert out.stat().st_size < 7_000_000


def test_it_works_without_torch(run, out):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'lightning', 'hydra']));"
        f"sys.argv = ['report', {str(run)!r}, '--out', {str(out)!r}];"
        "from langevin.report.__main__ import main; main()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, stdout=subprocess.DEVNULL)
    assert Content(out).data["runs"][0]["step"] == 1


def luminance(color):
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme):
    """WCAG 2.2, level AA: 4.5 for text (1.4.3), 3 for what is drawn and for the focus (1.4.11)."""
    parts = re.findall(r":root \{(.*?)\}", (Path(HERE) / "page.css").read_text(), re.DOTALL)
    colors = dict(re.findall(r"--([\w-]+): (#\w{6})", parts[0 if scheme == "light" else 1]))
    assert len(colors) == 18
    for name in colors.keys() - {"page", "card", "line", "grid"}:
        for ground in ("page", "card"):
            lighter, darker = sorted((luminance(colors[name]), luminance(colors[ground])), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= (4.5 if name in ("text", "soft", "bad") else 3), name
