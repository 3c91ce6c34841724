import csv
import shutil
import subprocess
import sys

import pytest
import yaml
from helpers.commands import ROOT, TINY, call
from PIL import Image

import langevin.assembly.run
from langevin.checkpoint import read_checkpoint
from langevin.errors import UserError


def train(folder, *overrides):
    return call("train", *TINY, f"output_dir={folder}", *overrides)


def step(run):
    return read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"]


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder):
    """Every file of a folder, and what is in it."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def runs(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, "name=mine").status == 0
    return folder / "mine"


@pytest.fixture
def mine(whole, tmp_path):
    """A copy of a run of two steps, as if it had been trained there."""
    return shutil.copytree(whole, tmp_path / "mine")


def test_a_run_leaves_what_is_promised(tmp_path):
    result = train(tmp_path, "name=mine", "conditions=[class_label]")
    assert result.status == 0
    run = tmp_path / "mine"
    assert runs(tmp_path) == ["mine"]
    assert str(run) in result.out
    assert runs(run) == ["checkpoints", "config.yaml", "data.json", "metrics.csv", "samples", "sessions.json"]

    text = (run / "config.yaml").read_text()
    config = yaml.safe_load(text)
    assert "${" not in text
    assert (config["name"], config["model"]["channels"], config["trainer"]["max_steps"]) == ("mine", 32, 2)
    assert config["conditions"]["class_label"]["_target_"] == "langevin.conditions.class_label.ClassLabel"
    assert "hydra" not in config

    assert step(run) == 2
    assert [row["step"] for row in rows(run)] == ["1", "2"]
    assert all(0 < float(row["train/loss"]) < 100 for row in rows(run))

    images = list((run / "samples").glob("*.png"))
    assert [path.name for path in images] == ["samples_00000002.png"]
    width, height = Image.open(images[0]).size
    assert width > 3 * height  # four images beside each other


def test_a_run_that_is_done_reports_it_and_touches_nothing(mine, tmp_path):
    before = content(tmp_path)
    result = train(tmp_path, "name=mine")
    assert result.status == 0
    assert f"{tmp_path / 'mine'} is done: it stands at step 2 of trainer.max_steps=2" in result.out
    assert train(tmp_path, "name=mine", "trainer.max_steps=1").status == 0
    assert content(tmp_path) == before


def test_more_steps_continue_it(mine, tmp_path):
    first = rows(tmp_path / "mine")
    result = train(tmp_path, "name=mine", "trainer.max_steps=4", "callbacks.samples.num_samples=5", "metrics=[]")
    assert result.status == 0
    assert "from step 2 to 4" in result.out
    assert step(tmp_path / "mine") == 4
    assert [row["step"] for row in rows(tmp_path / "mine")] == ["1", "2", "3", "4"]
    assert [row["train/loss"] for row in rows(tmp_path / "mine")[:2]] == [row["train/loss"] for row in first]


def test_a_name_belongs_to_one_config(mine, tmp_path):
    before = content(tmp_path)
    result = train(tmp_path, "name=mine", "trainer.max_steps=4", "optimizer.lr=0.5", "schedule=cosine")
    assert result.status == 1
    assert result.out == ""
    assert "name=mine: that run exists with another config; choose another name=" in result.err
    assert "  optimizer.lr: 0.0002 in the run, 0.5 now\n" in result.err
    assert "  schedule.beta_end: 0.02 in the run, absent now\n" in result.err
    assert "max_steps" not in result.err
    assert content(tmp_path) == before


def test_resume_false_refuses_a_run_that_is_there(tmp_path):
    assert train(tmp_path, "name=mine", "resume=false").status == 0
    before = content(tmp_path)
    result = train(tmp_path, "name=mine", "resume=false", "trainer.max_steps=4")
    assert result.status == 1
    assert f"resume=false, but the run {tmp_path / 'mine'} exists; choose another name=" in result.err
    assert content(tmp_path) == before


def test_without_a_name_a_command_has_its_own_folder(tmp_path):
    assert train(tmp_path).status == 0
    (name,) = runs(tmp_path)
    assert name.startswith("digits-unet_small-linear-")
    assert "is done" in train(tmp_path).out
    assert train(tmp_path, "trainer.max_steps=3").status == 0
    assert runs(tmp_path) == [name]
    assert step(tmp_path / name) == 3
    assert train(tmp_path, "seed=1").status == 0
    assert len(runs(tmp_path)) == 2


@pytest.mark.parametrize("place", [0, *(pytest.param(place, marks=pytest.mark.slow) for place in (3, None))])
def test_a_sweep_trains_each_cell_in_its_own_folder(tmp_path, place):
    """Wherever the flag stands."""
    arguments = [*TINY, "schedule=linear,cosine", f"output_dir={tmp_path}"]
    arguments.insert(len(arguments) if place is None else place, "-m")
    result = call("train", *arguments)
    assert result.status == 0, result.err
    assert [name.rpartition("-")[0] for name in runs(tmp_path)] == [
        "digits-unet_small-cosine",
        "digits-unet_small-linear",
    ]
    for name in runs(tmp_path):
        assert step(tmp_path / name) == 2
        target = yaml.safe_load((tmp_path / name / "config.yaml").read_text())["schedule"]["_target_"]
        assert target.rpartition(".")[-1].lower() in name


def test_a_sweep_over_nothing_and_something(tmp_path):
    assert train(tmp_path, "conditions=[],class_label", "-m").status == 0
    assert len(runs(tmp_path)) == 2


def test_null_takes_a_choice_back(tmp_path):
    quick = ["trainer.val_check_interval=null"]
    result = train(tmp_path, "experiment=digits", "conditions=null", "metrics=null", "name=mine", *quick)
    assert result.status == 0, result.err
    config = yaml.safe_load((tmp_path / "mine" / "config.yaml").read_text())
    assert not config.get("conditions")
    assert not config.get("metrics")


def test_the_bare_command_says_what_it_trains_and_what_to_try(tmp_path, monkeypatch):
    def stop(*_):
        raise UserError("stopped")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(langevin.assembly.run, "make_module", stop)
    bare, chosen = call("train"), call("train", "data=digits")
    assert bare.err.endswith("error: stopped\n")
    assert chosen.err.endswith("error: stopped\n")
    assert "data=digits model=unet_small formulation=ddpm, 100,000 steps" in bare.out
    assert bare.out.endswith(": langevin train experiment=digits\n")
    assert "experiment=digits" not in chosen.out


def test_metrics_are_computed_in_training(tmp_path):
    evaluation = ["metrics=[class_accuracy]", "evaluation.num_samples=6", "evaluation.batch_size=4"]
    result = train(tmp_path, "name=mine", "conditions=[class_label]", *evaluation)
    assert result.status == 0, result.err
    assert 0 <= float(rows(tmp_path / "mine")[-1]["eval/class_accuracy"]) <= 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["metrics=[class_accuracy]"], "metrics.class_accuracy needs the label of each sample"),
        (
            ["metrics=[fid]", "evaluation.num_samples=9"],
            "num_samples=9 is too few for metrics.fid, ",
        ),
        (["data=image_folder"], "data.path=null: give the folder or zip of your images"),
        (["data=image_folder", "data.path=nowhere"], "data.path=nowhere: there is no such file or folder"),
    ],
)
def test_what_only_the_data_can_tell_is_reported_before_training(overrides, words, tmp_path):
    result = train(tmp_path, "name=mine", *overrides)
    assert result.status == 1
    assert words in result.err
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_and_what_is_left_out_is_reported_in_a_line(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/3.gif"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(path)
    (tmp_path / "data" / "cat" / "4.png").write_bytes(b"junk")
    (tmp_path / "data" / "cat" / "5.heic").write_bytes(b"x")
    folder = f"data.path={tmp_path / 'data'}"
    data = ("data=image_folder", folder, "data.image_size=8", f"loader.cache_dir={tmp_path / 'cache'}", "name=mine")
    result = train(tmp_path / "runs", *data)
    assert result.status == 1
    assert "cat/4.png in " in result.err
    assert "data.skip_broken=true" in result.err
    assert train(tmp_path / "runs", *data, "data.background=[0,0]").status == 1
    for _ in range(2):
        result = train(tmp_path / "runs", *data, "data.skip_broken=true", "trainer.max_steps=1")
        assert result.status == 0, result.err
        lines = [line for line in result.out.splitlines() if line.startswith("data: ")]
        broken = f"1 broken image (cat/4.png in {tmp_path / 'data'})"
        assert lines == [f"data: 3 images in 2 classes; left out: 1 .heic file, {broken}"]
        shutil.rmtree(tmp_path / "runs")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = train(tmp_path / "file", "name=mine")
    assert result.status == 1
    assert result.err.splitlines()[-1] == f"error: {tmp_path / 'file' / 'mine'}: Not a directory"
    assert "Traceback" not in result.err


def test_a_damaged_last_checkpoint_is_no_new_beginning(mine, tmp_path):
    checkpoint = tmp_path / "mine" / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    before = content(tmp_path)
    result = train(tmp_path, "name=mine", "trainer.max_steps=4")
    assert result.status == 1
    assert f"checkpoint {checkpoint} is damaged (" in result.err
    assert "Traceback" not in result.err
    assert content(tmp_path) == before


def process(*arguments, cwd=ROOT):
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_mistake_ends_the_process_with_status_1(tmp_path):
    """From another folder than the repository's."""
    done = process(str(ROOT / "train.py"), "schedule.num_step=10", "sampler.steps=0", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: 2 mistakes in the config:",
        "  schedule.num_step: no such option (did you mean num_steps?); "
        "allowed: num_steps, beta_start, beta_end, rescale",
        "  sampler.steps: is 0; allowed: a whole number, at least 1 or null",
    ]
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_unfinished_is_cleared_away(tmp_path):
    overrides = [*TINY, f"output_dir={tmp_path}", "name=run"]
    assert call("train", *overrides, "trainer.max_steps=1").status == 0
    unfinished = tmp_path / "run" / "checkpoints" / ".last.ckpt.0a1b2c3d"
    unfinished.write_bytes(b"half")
    assert call("train", *overrides, "trainer.max_steps=2").status == 0
    assert sorted(path.name for path in unfinished.parent.iterdir()) == ["last-1.ckpt", "last.ckpt"]
