"""`python -m experiments.gpu`, rehearsed on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from experiments.gpu import __main__ as gpu
from experiments.gpu import check, report
from experiments.gpu.day import RESULTS, Day
from experiments.gpu.train import steps_for
from helpers.commands import ROOT, wait_for

pytestmark = pytest.mark.e2e

pytest.importorskip("diffusers")
pytest.importorskip("matplotlib")

COMMAND = (sys.executable, "-m", "experiments.gpu")


def read(folder):
    return json.loads((folder / RESULTS).read_text())


def day_in(folder, seconds=60):
    day = Day(folder / "out", folder / "work", "cpu", seconds)
    day.open()
    return day


def test_a_command_is_recorded_with_its_end(tmp_path):
    day = day_in(tmp_path)
    done = day.run(["-c", "import os; print('said', os.environ['LANGEVIN_CACHE'])"], 30)
    assert (done["status"], done["command"].split()[:2]) == (0, ["python", "-c"])
    assert f"said {tmp_path / 'work' / 'cache'}" in (tmp_path / "out" / "log.txt").read_text()
    assert day.run(["-c", "raise SystemExit(3)"], 30)["status"] == 3


def test_a_command_ends_when_its_time_is_over(tmp_path):
    day = day_in(tmp_path)
    began = time.monotonic()
    assert day.run(["-c", "import time; time.sleep(60)"], 1)["status"] is None
    assert time.monotonic() - began < 20
    day.seconds = 0
    assert day.run(["-c", "print('never')"], 30) == {
        "command": "python -c print('never')",
        "seconds": 0,
        "status": None,
    }


def test_tests_that_are_done_are_kept(tmp_path):
    lines = tmp_path / "check.jsonl"
    lines.write_text('{"test": "a"}\n{"test": "b"}\n{"test": "c"')
    assert [test["test"] for test in check.read(lines)] == ["a", "b"]
    assert check.read(tmp_path / "none") == []


def test_steps_fill_the_time(tmp_path):
    (tmp_path / "config.yaml").write_text("batch_size: 50\n")
    (tmp_path / "metrics.csv").write_text("step,train/images_per_second\n5,7.0\n10,100.0\n11,\n")
    assert steps_for(tmp_path, 20) == 40
    assert steps_for(tmp_path, -3) == 1


def test_a_table_says_what_was_not_done():
    ended = {"command": "python train.py", "seconds": 3.0, "status": None}
    test = {"test": "tests/gpu/test_a.py::test_b", "outcome": "failed", "seconds": 1.0, "figures": {}, "message": "a|b"}
    results = {"check": {**ended, "status": 1, "tests": [test]}, "train": {"run": ended}}
    text = report.tables(results)
    assert "| test_b | failed | 1.0 | a\\|b |" in text
    assert "`python train.py`: stopped, its time was over, 3 s." in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["all", "--device=cpu"], ["--out"]),
        (["check", "--out=o", "--budget=0"], ["--budget", "0", "from 1 up"]),
        (["check", "--out=o", "--cifar10=none.zip", "--device=cpu"], ["--cifar10", "none.zip", "does not exist"]),
    ],
)
def test_mistakes_are_reported(arguments, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        gpu.main(arguments)
    assert end.value.code not in (0, None)
    output = capsys.readouterr().err
    assert all(word in output for word in words)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_day_killed_in_its_middle_leaves_what_was_done_and_resumes(tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with log.open("w") as file:
        arguments = ("all", f"--out={out}", "--device=cpu", "--budget=900")
        process = subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, env=environment, stdout=file, stderr=file)
        try:
            wait_for(lambda: "kernels" in read_if_there(out).get("speed", {}), process, log, seconds=600)
        finally:
            process.kill()
    assert process.wait() == -signal.SIGKILL
    killed = read(out)
    assert set(killed) == {"about", "check", "speed"}
    assert [test for test in killed["check"]["tests"] if test["outcome"] == "failed"] == []
    assert len(killed["check"]["tests"]) >= 10
    assert killed["speed"]["kernels"]["results"]["longest"][0]["ms_per_step"] > 0

    ended = subprocess.run([*COMMAND, "train", f"--out={out}", "--device=cpu"], cwd=ROOT, env=environment)
    assert ended.returncode == 0
    whole = read(out)
    assert whole["speed"] == killed["speed"]
    assert any(name.startswith("fd_classifier-digits") for name in whole["train"]["metrics"]["metrics"])
    for name in ("samples.png", "curves.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "fd_classifier-digits" in (out / "results.md").read_text()


def read_if_there(folder):
    return read(folder) if (folder / RESULTS).is_file() else {}
