"""The installed program: `langevin COMMAND ...`."""

import os
import runpy
import subprocess
import sys
import sysconfig
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from langevin import __version__
from langevin.__main__ import MODULES, main
from langevin.interrupt import listening

ROOT = Path(__file__).parents[1]


def run(capsys, monkeypatch, *arguments, program=main):
    monkeypatch.setattr(sys, "argv", ["langevin", *arguments])
    spec = sys.modules["__main__"].__spec__
    try:
        program()
        status = 0
    except SystemExit as done:
        status = done.code
    finally:
        sys.modules["__main__"].__spec__ = spec
    read = capsys.readouterr()
    return status, read.out, read.err


def test_the_entry_point_is_this_program():
    (script,) = entry_points(group="console_scripts", name="langevin")
    assert script.load() is main
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"] == {"langevin": script.value}


def test_every_command_has_a_main_and_a_line_in_the_overview(capsys, monkeypatch):
    for module in MODULES.values():
        assert callable(import_module(module).main)
    assert run(capsys, monkeypatch) == run(capsys, monkeypatch, "--help")
    status, out, _ = run(capsys, monkeypatch, "--help")
    assert status == 0
    assert [name for name in MODULES if f"  langevin {name} " not in out] == []
    assert run(capsys, monkeypatch, "--version") == (0, f"{__version__}\n", "")


def test_an_unknown_command_is_refused(capsys, monkeypatch):
    status, out, err = run(capsys, monkeypatch, "trian", "data=digits")
    assert (status, out) == (1, "")
    assert err.startswith("error: trian: no such command (did you mean train?); allowed: train, sample, ")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: trian: no such command (did you mean train?); allowed: train, sample, "),
        (
            ["train", "schedule.num_step=10"],
            "error: 1 mistake in the config:\n  schedule.num_step: no such option (did ",
        ),
    ],
)
def test_a_mistake_is_one_message_of_python_m_too(capsys, monkeypatch, arguments, message):
    def program():
        with listening():  # signals mean afterwards what they did before
            runpy.run_module("langevin", run_name="__main__")

    status, out, err = run(capsys, monkeypatch, *arguments, program=program)
    assert (status, out) == (1, "")
    assert err.startswith(message)
    assert "Traceback" not in err


def test_the_help_of_a_command_shows_its_own_options(capsys, monkeypatch):
    status, out, _ = run(capsys, monkeypatch, "sample", "--help")
    assert status == 0
    assert "checkpoint=..." in out
    assert "num_samples=64" in out
    assert "folder for samples.npz and grid.png; null: generated/ in the run's folder" in out
    assert max(map(len, out.splitlines())) <= 120


def test_the_help_of_groups_and_parts(capsys, monkeypatch):
    status, out, _ = run(capsys, monkeypatch, "train", "--help", "metrics", "schedule=cosine")
    assert status == 0
    assert "metrics: what is computed of samples (default: []; several as metrics=[A,B])" in out
    assert "schedule.s=0.008 " in out
    for wrong, message in {
        "scedule": "error: --help scedule: allowed beside --help: GROUP or GROUP=PART; groups: data, ",
        "schedule=cosin": "error: --help schedule=cosin: parts of schedule: cosine, cosine_chen, ",
    }.items():
        status, out, err = run(capsys, monkeypatch, "train", "--help", wrong)
        assert (status, out) == (1, "")
        assert err.startswith(message)


def test_the_help_waits_for_neither_hydra_nor_torch():
    code = (
        "import sys; from langevin.__main__ import main; sys.argv = ['langevin', 'sample', '--help']; main(); "
        "sys.exit(bool({'hydra', 'omegaconf', 'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("asked", [["--version"], ["sample", "--help"], ["runs", "."]], ids=" ".join)
def test_what_is_printed_ends_with_its_reader(asked, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)  # as `head` does when it has its lines
    code = "import sys; from langevin.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *asked],
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_without_an_output_nothing_is_printed():
    code = "import sys; from langevin.__main__ import main; main()"
    closed = ["sh", "-c", 'exec "$0" -c "$1" --help >&-', sys.executable, code]
    done = subprocess.run(closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_own_parts_beside_their_configs_are_found_in_the_current_folder(tmp_path):
    """By the installed script, which by itself imports nothing from there; nor does it hide an installed package."""
    (tmp_path / "conf" / "schedule").mkdir(parents=True)
    (tmp_path / "conf" / "schedule" / "own.yaml").write_text("_target_: own_parts.Own\n")
    source = "from langevin.diffusion.schedules.cosine import Cosine\n\n\nclass Own(Cosine):\n    pass\n"
    (tmp_path / "own_parts.py").write_text(source)
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong torch')\n")
    script = Path(sysconfig.get_path("scripts")) / "langevin"
    command = [script, "train", "--config-dir=conf", "schedule=own", "ema.max_decay=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: 1 mistake in the config:\n  ema.max_decay: is 1; allowed: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [["-m", "langevin", "train"], ["train.py"]],
    ids=["langevin", "script"],
)
def test_a_mistake_is_reported_the_same_way_by_the_program_and_the_script(start):
    """Of a sweep too, since Hydra reads the command line that the program leaves it."""
    done = subprocess.run(
        [sys.executable, *start, "schedule.num_step=10"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: 1 mistake in the config:\n  schedule.num_step: no such option (did you mean ")
