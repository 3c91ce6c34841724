"""`python -m langevin.runs`, on runs that were trained, killed, spoilt."""

import csv
import errno
import fcntl
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import yaml
from helpers.commands import TINY, call
from helpers.processes import command

from langevin import runs
from langevin.checkpoint import read_checkpoint
from langevin.training.module import DiffusionModule

pytestmark = pytest.mark.e2e


QUIET = (
    *(option for option in TINY if not option.startswith("callbacks")),
    "callbacks=[checkpoint,progress,divergence]",
    "callbacks.progress.every_n_steps=1",
)


def train(folder, *overrides, status=0):
    result = call("train", *QUIET, f"output_dir={folder}", *overrides)
    assert result.status == status, result.err


def listed(capsys, monkeypatch, folder, *options):
    monkeypatch.setattr(sys, "argv", ["runs", str(folder), *options])
    capsys.readouterr()
    runs.main()
    return capsys.readouterr().out


def found(capsys, monkeypatch, folder, *options):
    return {run["name"]: run for run in json.loads(listed(capsys, monkeypatch, folder, "--json", *options))}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two schedules with two seeds, and a run that reached step 2 of 3; validated at the second step."""
    folder = tmp_path_factory.mktemp("sweep") / "runs"
    options = ("trainer.val_check_interval=2", "trainer.limit_val_batches=1", "optimizer.lr=1e-4")
    train(folder, *options, "-m", "schedule=linear,cosine", "seed=0,1")
    train(folder, *options, "name=longer", "seed=5")
    config = folder / "longer" / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 2\n", "max_steps: 3\n"))
    return folder


def test_what_a_sweep_came_to(capsys, monkeypatch, sweep):
    seen = found(capsys, monkeypatch, sweep)
    assert len(seen) == 5
    longer = seen.pop("longer")
    assert (longer["state"], longer["step"], longer["max_steps"]) == ("unfinished", 2, 3)
    for name, run in seen.items():
        assert run["folder"] == str(sweep)
        assert (run["state"], run["step"], run["max_steps"], run["note"]) == ("done", 2, 2, "")
        with (sweep / name / "metrics.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        assert run["metrics"]["train/loss"] == {"value": float(last["train/loss"]), "step": 2}
        assert run["metrics"]["val/loss"] == {"value": float(last["val/loss"]), "step": 2}
        assert run["images_per_second"] == float(last["train/images_per_second"])
        assert 0 <= time.time() - run["updated"] < 300
    # Of the schedule's fields only the class: linear's beta_start differs in nothing among the linear ones.
    assert {
        (run["differs"]["schedule._target_"].rpartition(".")[2], run["differs"]["seed"]) for run in seen.values()
    } == {
        ("Linear", 0),
        ("Linear", 1),
        ("Cosine", 0),
        ("Cosine", 1),
    }
    assert {frozenset(run["differs"]) for run in seen.values()} == {frozenset(["schedule._target_", "seed"])}


def test_the_table(capsys, monkeypatch, sweep):
    monkeypatch.delenv("COLUMNS", raising=False)
    title, head, *lines = listed(capsys, monkeypatch, sweep).splitlines()
    assert title == f"{sweep}: 5 runs: 1 unfinished, 4 done"
    assert head.split() == ["run", "state", "step", "age", "images/s", "loss", "val", "loss", "differs"]
    assert len(lines) == 5
    assert {tuple(line.split()[-2:]) for line in lines} == {
        (f"seed={seed}", f"schedule={kind}") for kind, seed in [("linear", 0), ("linear", 1), ("linear", 5)]
    } | {(f"seed={seed}", "schedule=cosine") for seed in (0, 1)}
    column = head.index("differs")
    assert all(line[column - 1] == " " and line[column:].startswith("seed=") for line in lines)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits(capsys, monkeypatch, sweep, width):
    monkeypatch.setenv("COLUMNS", str(width))
    head, *lines = listed(capsys, monkeypatch, sweep).splitlines()[1:]
    assert max(map(len, [head, *lines])) <= width
    assert all("done" in line or "unfinished" in line for line in lines)
    assert head.split()[:4] == ["run", "state", "step", "age"]
    assert any("…" in line for line in lines) == (width == 60)
    assert ("val loss" in head) == (width == 120)


def test_one_state(capsys, monkeypatch, sweep):
    assert list(found(capsys, monkeypatch, sweep, "--state", "unfinished")) == ["longer"]
    assert "no such runs" in listed(capsys, monkeypatch, sweep, "--state", "running")


def test_a_run_itself_may_be_named(capsys, monkeypatch, sweep):
    assert list(found(capsys, monkeypatch, sweep / "longer")) == ["longer"]
    assert list(found(capsys, monkeypatch, sweep.parent)) == list(found(capsys, monkeypatch, sweep))


def test_no_folder(capsys, monkeypatch, tmp_path):
    with pytest.raises(SystemExit) as end:
        listed(capsys, monkeypatch, tmp_path / "nowhere")
    assert end.value.code == 1
    assert "nowhere is no folder" in capsys.readouterr().err


def test_foreign_and_damaged_folders(capsys, monkeypatch, sweep, tmp_path):
    """Whatever lies about; and a run of which ever more is damaged."""
    train(tmp_path, "name=run", "callbacks.checkpoint.every_minutes=0.00001")
    for name, content in {"foreign": "a: 1", "broken": "a: [", "empty": "", "list": "- 1"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(content)
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "config.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "loop").symlink_to(tmp_path)
    run, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    (run / "generated").mkdir()
    (run / "generated" / "config.yaml").write_text((run / "config.yaml").read_text())  # no run of its own

    def state():
        (only,) = found(capsys, monkeypatch, tmp_path).values()
        listed(capsys, monkeypatch, tmp_path)
        return only["state"], only["step"], only["note"]

    assert state() == ("done", 2, "")
    whole = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").write_bytes(whole[:-10])  # the last row is cut off
    assert state() == ("done", 2, "")
    last = checkpoints / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    assert read_checkpoint(checkpoints / "last-1.ckpt")["global_step"] == 1
    assert state() == ("unfinished", 1, "")
    (run / "metrics.csv").write_bytes(b"no step\n" + os.urandom(3000))
    assert state() == ("unfinished", 1, "metrics.csv is damaged: its first line names no column 'step'")
    (checkpoints / "last-1.ckpt").write_bytes(b"")
    assert state() == ("failed", 0, "its checkpoints are damaged")
    (run / "config.yaml").write_text("trainer: {max_steps: ")
    assert state() == ("failed", 0, "config.yaml is damaged")


def test_a_run_that_diverged(capsys, monkeypatch, tmp_path):
    step = DiffusionModule.training_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            DiffusionModule, "training_step", lambda *batch: step(*batch) * (math.nan if batch[2] == 1 else 1)
        )
        train(
            tmp_path,
            "callbacks.checkpoint.every_minutes=0.00001",
            "name=run",
            status=1,
        )
    run = found(capsys, monkeypatch, tmp_path)["run"]
    assert (run["state"], run["step"], run["note"]) == ("failed", 1, "diverged at step 2: the loss is nan")
    train(tmp_path, "name=run")
    run = found(capsys, monkeypatch, tmp_path)["run"]
    assert (run["state"], run["step"], run["note"]) == ("done", 2, "")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 2\n", "max_steps: 3\n"))
    run = found(capsys, monkeypatch, tmp_path)["run"]
    assert (run["state"], run["step"], run["note"]) == ("unfinished", 2, "")  # it is past that
    metrics = tmp_path / "run" / "metrics.csv"
    row = {"step": "3", "train/loss": "nan"}
    with metrics.open("a") as file:
        file.write(",".join(row.get(name, "") for name in metrics.read_text().splitlines()[0].split(",")) + "\n")
    run = found(capsys, monkeypatch, tmp_path)["run"]
    assert (run["state"], run["note"]) == ("failed", "diverged: the loss is not finite at step 3")


def test_running_and_killed(capsys, monkeypatch, tmp_path):
    """In a process of its own, which the listing does not disturb."""
    options = {option.partition("=")[0]: option for option in (*QUIET, "trainer.max_steps=100000")}
    process = command("train", *options.values(), f"output_dir={tmp_path}", "name=run", log=tmp_path / "log")
    try:
        metrics, deadline = tmp_path / "run" / "metrics.csv", time.monotonic() + 120
        while not metrics.exists() or metrics.read_text().count("\n") < 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        monkeypatch.setattr(fcntl, "flock", None)  # nobody takes a lock
        run = found(capsys, monkeypatch, tmp_path)["run"]
        assert run["state"] == "running"
        assert 4 <= run["step"] < run["max_steps"] == 100000
        assert "1 run: 1 running" in listed(capsys, monkeypatch, tmp_path)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert found(capsys, monkeypatch, tmp_path)["run"]["state"] == "unfinished"


def test_a_lock_as_nfs_has_it_from_another_machine(capsys, monkeypatch, sweep):
    """There flock is a lock of a range of bytes, which can be asked about."""
    lock = sweep / "longer" / ".lock"
    lock.touch()
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "1\n"
        monkeypatch.setattr(runs, "held_locks", frozenset)
        states = {name: run["state"] for name, run in found(capsys, monkeypatch, sweep).items()}
        process.communicate("\n")
    assert states.pop("longer") == "running"
    assert set(states.values()) == {"done"}
    assert found(capsys, monkeypatch, sweep)["longer"]["state"] == "unfinished"


def test_it_writes_nothing(capsys, monkeypatch, sweep):
    def content():
        return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in sweep.rglob("*")}

    before = content()
    listed(capsys, monkeypatch, sweep)
    assert content() == before


def test_it_starts_without_torch():
    code = "import sys, langevin.runs; sys.exit(bool({'torch', 'lightning', 'hydra'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


CONFIG = "trainer: {max_steps: 2}\n"
LOG = "step,train/loss\n1,0.5\n2,0.25\n"
SPOILT = {
    "cyclic": ("config.yaml", CONFIG + "a: &a [*a]\n", "failed", "nested without end"),
    "explosive": (
        "config.yaml",
        CONFIG + "a0: &a0 [1, 2]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
        "failed",
        "too many values",
    ),
    "deep": ("config.yaml", CONFIG + "a: " + "[" * 3000 + "]" * 3000, "failed", "config.yaml is damaged"),
    "great": ("config.yaml", CONFIG + f"a: {'9' * 5000}\n", "failed", "config.yaml is damaged"),
    "greater": ("config.yaml", CONFIG + f"a: 0x{'f' * 5000}\n", "failed", "too great a number"),
    "list": ("config.yaml", "- 1\n", "failed", "it holds no options"),
    "no text": ("config.yaml", b"a: \xff\xfe\n", "failed", "config.yaml is damaged"),
    "odd kind": ("config.yaml", CONFIG + "a: {_target_: [1], b: 2}\n", "unfinished", ""),
    "a date": ("config.yaml", CONFIG + "a: 2024-01-01\n", "unfinished", ""),
    "long step": ("metrics.csv", LOG + f"{'7' * 5000},0.125\n", "unfinished", "a row has the step '7777"),
    "zeros": ("metrics.csv", LOG.encode() + bytes(5000) + b"\n", "unfinished", r"a row has the step '\x00"),
    "long field": ("metrics.csv", LOG + f"3,{'1' * 3_000_000}\n", "unfinished", "a row is too long"),
    "no log": ("metrics.csv", "[" * 10_000 + "\n", "unfinished", "names no column 'step'"),
    "deep fault": ("diverged/step_1.json", "[" * 100_000, "unfinished", ""),
    "deep session": ("sessions.json", "[" * 100_000, "unfinished", ""),
}


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """A run for each thing that can be wrong, and a good one."""
    folder = tmp_path_factory.mktemp("spoilt")
    for name, (file, content, _, _) in ({"good": ("", "", "", "")} | SPOILT).items():
        run = folder / name
        (run / "diverged").mkdir(parents=True)
        (run / "config.yaml").write_text(CONFIG + "seed: 3\n")
        (run / "metrics.csv").write_text(LOG)
        if file:
            (run / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_a_spoilt_run_is_marked_and_the_others_are_listed(capsys, monkeypatch, spoilt):
    seen = found(capsys, monkeypatch, spoilt)
    assert seen.keys() == SPOILT.keys() | {"good"}
    assert (seen["good"]["state"], seen["good"]["step"], seen["good"]["note"]) == ("unfinished", 2, "")
    for name, (_, _, state, note) in SPOILT.items():
        assert seen[name]["state"] == state, name
        assert note in seen[name]["note"], name
        assert bool(note) == bool(seen[name]["note"]), name
        assert len(seen[name]["note"]) < 100
    lines = listed(capsys, monkeypatch, spoilt).splitlines()
    assert len(lines) == 2 + len(seen)


def test_a_run_that_may_not_be_read_is_marked(capsys, monkeypatch, tmp_path):
    """As root all may be read, so the refusal is made up."""
    for name in ("closed", "open", "half"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(CONFIG)
        (tmp_path / name / "metrics.csv").write_text(LOG)
    scandir, read = os.scandir, type(tmp_path).read_text

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    def refusing_half(path, *options):
        if path.parent.name == "half":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path, *options)

    monkeypatch.setattr(os, "scandir", refusing)
    monkeypatch.setattr(type(tmp_path), "read_text", refusing_half)
    seen = {name: (run["state"], run["note"]) for name, run in found(capsys, monkeypatch, tmp_path).items()}
    assert seen == {
        "closed": ("failed", "cannot be read (Permission denied)"),
        "half": ("failed", "config.yaml cannot be read (Permission denied)"),
        "open": ("unfinished", ""),
    }


def test_names_and_values_do_nothing_to_a_terminal(capsys, monkeypatch, tmp_path):
    for number, name in enumerate(["\x1b]0;title\x07", "\u202eevil", "\x9b31m"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(CONFIG + f'value: "\\e[2J{number}"\n')
        (tmp_path / name / "metrics.csv").write_text("step,val/\x1b[31m\n1,0.5\n")
    output = listed(capsys, monkeypatch, tmp_path)
    assert all(line.isprintable() for line in output.splitlines())
    for shown in (r"\x1b]0;title\x07", r"\u202eevil", r"\x9b31m", r"value=\x1b[2J0", r"val \x1b[31m"):
        assert shown in output, output


def test_an_imported_model_is_listed(capsys, monkeypatch, tmp_path):
    """And makes nothing of the trained run beside it differ."""
    train(tmp_path / "runs", "name=own", "schedule=linear")
    folder = tmp_path / "runs" / "theirs"
    shutil.copytree(tmp_path / "runs" / "own" / "checkpoints", folder / "checkpoints")
    config = yaml.safe_load((folder.parent / "own" / "config.yaml").read_text())
    kept = {name: config[name] for name in ("model", "parameterization", "sampler")}
    kept["schedule"] = {"_target_": "langevin.diffusion.schedules.cosine.Cosine"}
    (folder / "config.yaml").write_text(yaml.safe_dump(kept))
    seen = found(capsys, monkeypatch, tmp_path)
    theirs = seen["theirs"]
    assert (theirs["state"], theirs["step"], theirs["max_steps"]) == ("imported", 0, None)
    assert theirs["note"] == "model=unet schedule=cosine parameterization=eps"
    assert (seen["own"]["state"], seen["own"]["differs"]) == ("done", {})
    lines = listed(capsys, monkeypatch, tmp_path).splitlines()
    assert lines[0].endswith("2 runs: 1 done, 1 imported")
    assert lines[3].split()[:2] == ["theirs", "imported"]
    assert "/" not in lines[3].split(" ", 1)[1], "no steps"
    assert list(found(capsys, monkeypatch, tmp_path, "--state", "imported")) == ["theirs"]
    shutil.rmtree(folder / "checkpoints")
    assert list(found(capsys, monkeypatch, tmp_path)) == ["own"]


def test_a_terminal_has_colours(capsys, monkeypatch, sweep):
    plain = listed(capsys, monkeypatch, sweep)
    assert "\x1b[" not in plain
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True, raising=False)
    coloured = listed(capsys, monkeypatch, sweep)
    assert "\x1b[32mdone" in coloured
    words = re.sub(r"\x1b\[[0-9;]*m", "", coloured).split()
    assert [word for word in words if "=" in word] == [word for word in plain.split() if "=" in word]
