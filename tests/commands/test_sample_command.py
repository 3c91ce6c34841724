import io
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from helpers.commands import call, wait_for
from helpers.images import shown
from helpers.processes import command
from PIL import Image

from langevin.checkpoint import RECORD
from langevin.filling import filling
from langevin.interrupt import STATUS
from langevin.samplers.store import SampleStore


def sample(checkpoint, out, *overrides, num_samples=6):
    result = call("sample", f"checkpoint={checkpoint}", f"out={out}", f"num_samples={num_samples}", *overrides)
    assert "Traceback" not in result.err
    return result


def sampled(checkpoint, out, *overrides, num_samples=6):
    result = sample(checkpoint, out, *overrides, num_samples=num_samples)
    assert result.status == 0, result.err
    with np.load(out / "samples.npz") as file:
        return file["arr_0"]


def test_writes_what_is_promised(labelled, tmp_path):
    result = sample(labelled, tmp_path / "out", "png=true", num_samples=12)
    assert result.status == 0, result.err
    assert "12 images of step 6" in result.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["grid.png", "png", "samples.npz"]
    with np.load(tmp_path / "out" / "samples.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["arr_0", "arr_1", "record"]
        images, labels, record = file["arr_0"], file["arr_1"], json.loads(str(file["record"]))
    assert record["model"]["step"] == 6
    assert record["samples"]["sampler"]["_target_"] == "langevin.samplers.ddim.DDIM"
    assert (record["samples"]["evaluations"], record["samples"]["seed"]) == (record["samples"]["sampler"]["steps"], 0)
    assert (images.shape, images.dtype) == ((12, 8, 8, 1), np.uint8)
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert 20 < images.std() < 120
    assert ((images > 0) & (images < 255)).mean() > 0.3, "else little would be compared in what follows"
    files = sorted((tmp_path / "out" / "png").iterdir())
    assert [path.name for path in files] == [f"{index:06d}-{index % 10}.png" for index in range(12)], "and the class"
    for image, file in zip(images, files, strict=True):
        assert np.array_equal(np.asarray(Image.open(file).convert("L"))[..., None], image)
    grid = np.asarray(Image.open(tmp_path / "out" / "grid.png"))
    rows = shown(grid, 2, 10, heads=True)  # a class a column
    assert np.array_equal(rows[0], images[:10, ..., 0])
    assert np.array_equal(rows[1][:2], images[10:, ..., 0])


def test_an_unconditional_model_has_no_labels(plain, tmp_path):
    assert sampled(plain, tmp_path).shape == (6, 8, 8, 1)
    with np.load(tmp_path / "samples.npz") as file:
        assert sorted(file.files) == ["arr_0", "record"]
    assert not (tmp_path / "png").exists()


def test_goes_into_the_run_by_default(plain, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    assert call("sample", f"checkpoint={run}", "num_samples=2").status == 0
    assert (run / "generated" / "samples.npz").is_file()
    (tmp_path / "alone").mkdir()
    shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "alone" / "model.ckpt")
    assert call("sample", f"checkpoint={tmp_path / 'alone' / 'model.ckpt'}", "num_samples=2").status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "run"]
    assert (tmp_path / "alone" / "generated" / "samples.npz").is_file()


def test_a_image_depends_on_its_number_alone(labelled, tmp_path):
    expected = sampled(labelled, tmp_path / "64", "batch_size=64", num_samples=8)
    for size in (1, 3):
        assert np.array_equal(sampled(labelled, tmp_path / f"{size}", f"batch_size={size}", num_samples=8), expected)
    more = sampled(labelled, tmp_path / "more", "batch_size=5", num_samples=13)
    assert np.array_equal(more[:8], expected)
    assert not np.array_equal(more[0], more[10]), "the same class, but other noise"
    other = sampled(labelled, tmp_path / "other", "seed=1", num_samples=8)
    assert not np.array_equal(other, expected)


def test_labels(labelled, tmp_path):
    def made(*overrides):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        images = sampled(labelled, out, *overrides)
        with np.load(out / "samples.npz") as file:
            return images, file["arr_1"].tolist()

    every, in_turn = made()
    three, threes = made("labels=3")
    two, pair = made("labels=[3,1]")
    assert in_turn == [0, 1, 2, 3, 4, 5]
    assert threes == [3] * 6
    assert pair == [3, 1, 3, 1, 3, 1]
    assert np.array_equal(three[3], every[3])
    assert np.array_equal(two[[0, 2, 4]], three[[0, 2, 4]])
    assert not np.array_equal(three, every), "the model looks at its labels"


@pytest.mark.parametrize(
    ("run", "overrides", "words"),
    [
        ("labelled", ["labels=10"], "labels is [10]; allowed: whole numbers from 0 to 9"),
        ("labelled", ["labels=[1,-1]"], "labels is [1, -1]; allowed: whole numbers from 0 to 9"),
        ("labelled", ["labels=[]"], "labels is []; allowed: whole numbers from 0 to 9"),
        ("labelled", ["labels=three"], "labels: is 'three'; allowed: a whole number or a list"),
        ("plain", ["labels=3"], "labels is [3]; the model is not conditioned on labels, so leave labels out"),
        ("plain", ["guidance=classifier_free"], "guidance: needs a class-conditional model"),
        ("plain", ["num_samples=0"], "num_samples: is 0; allowed: a whole number, at least 1"),
        ("plain", ["seed=-1", "batch_size=0"], "  seed: is -1; allowed: a whole number, at least 0"),
        ("plain", ["sampler.steps=0"], "sampler.steps: is 0; allowed: a whole number, at least 1"),
        (
            "plain",
            ["sampler.steps=2000"],
            "sampler.steps: is 2000; allowed: at least 1 and at most",
        ),
        ("plain", ["sampler.step=3"], "sampler.step: no such option (did you mean steps?)"),
        ("plain", ["sampler=eulr"], "sampler=eulr: no such option (did you mean euler?); allowed: ancestral, "),
        ("plain", ["guidance.scale=3"], "guidance: is not chosen; choose it first: guidance=NAME with one of"),
        ("plain", ["model.channels=64"], "model: no such option; allowed: checkpoint, ema_width, cascade, num_samples"),
        (
            "plain",
            ["seed=${nowhere}"],
            "seed: is ${nowhere}, which cannot be resolved: Interpolation key 'nowhere' not found",
        ),
        ("plain", ["accelerator=abacus"], "accelerator=abacus, devices=1: "),
        ("plain", ["accelerator=cpu", "devices=0"], "accelerator=cpu, devices=0: "),
    ],
)
def test_a_mistake(run, overrides, words, tmp_path, request):
    result = sample(request.getfixturevalue(run), tmp_path / "out", *overrides)
    assert result.status == 1
    assert words in result.err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_must_be_given():
    result = call("sample")
    assert result.status == 1
    assert "checkpoint: must be given; allowed: a text" in result.err


def test_the_runs_own_sampler_but_for_the_fields_that_are_set(plain, tmp_path):
    own = sampled(plain, tmp_path / "own")
    one = sampled(plain, tmp_path / "one", "sampler.steps=1")
    assert not np.array_equal(own, one)
    assert np.array_equal(one, sampled(plain, tmp_path / "ddim", "sampler=ddim", "sampler.steps=1"))
    assert np.array_equal(own, sampled(plain, tmp_path / "two", "sampler=ddim", "sampler.steps=2"))
    assert not np.array_equal(own, sampled(plain, tmp_path / "grid", "timestep_spacing=leading"))
    ancestral = sampled(plain, tmp_path / "ancestral", "sampler=ancestral", "sampler.steps=2")
    assert not np.array_equal(own, ancestral)


def test_guidance_can_be_chosen_and_taken_back(labelled, train, tmp_path):
    guided = train(
        "guided",
        "conditions=[class_label]",
        "guidance=classifier_free",
        "guidance.scale=4",
    )
    without = sampled(labelled, tmp_path / "without")
    steered = sampled(labelled, tmp_path / "steered", "guidance=classifier_free", "guidance.scale=4")
    assert not np.array_equal(without, steered)
    # The two runs differ in nothing that trains them.
    assert np.array_equal(sampled(guided, tmp_path / "own"), steered)
    for number, override in enumerate(("guidance=none", "guidance=null", "guidance.scale=1")):
        assert np.array_equal(sampled(guided, tmp_path / str(number), override), without), override


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        pytest.param(["seed=5"], "  samples.seed: 0 there, 5 now", marks=pytest.mark.slow),
        pytest.param(["sampler.steps=1"], "  samples.sampler.steps: 2 there, 1 now", marks=pytest.mark.slow),
        pytest.param(
            ["labels=3"], "  samples.labels: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] there, [3] now", marks=pytest.mark.slow
        ),
        (["num_samples=7"], "  num_samples: 6 there, 7 now"),
    ],
    ids=str,
)
def test_an_earlier_samples_file_is_kept_unless_overwrite_is_set(labelled, tmp_path, overrides, line):
    first = sampled(labelled, tmp_path)
    before = (tmp_path / "samples.npz").read_bytes()
    result = sample(labelled, tmp_path, *overrides)
    assert result.status == 1
    message = f"out={tmp_path}: holds a samples.npz already; choose another out=, or overwrite=true. That was made with"
    assert message in result.err
    assert line in result.err.splitlines()
    assert (tmp_path / "samples.npz").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.png", "samples.npz"]
    assert not np.array_equal(sampled(labelled, tmp_path, *overrides, "overwrite=true"), first)


@pytest.mark.parametrize("content", ["nothing", "no record", "record"])
def test_a_samples_file_that_does_not_say_how_it_was_made_is_kept(plain, tmp_path, content):
    path = tmp_path / "samples.npz"
    arrays = {"arr_0": np.zeros((6, 8, 8, 1), np.uint8)} | ({"record": np.array("[]")} if content == "record" else {})
    path.write_bytes(b"") if content == "nothing" else np.savez(path, **arrays)
    before = path.read_bytes()
    result = sample(plain, tmp_path)
    assert result.status == 1
    assert "holds a samples.npz already" in result.err
    assert "is not recorded" in result.err
    assert path.read_bytes() == before


def test_what_is_done_is_not_made_again(plain, tmp_path, made):
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    arguments = ["num_samples=6", "batch_size=4"]
    assert call("sample", f"checkpoint={run}", *arguments).status == 0
    out = run / "generated"
    contents = {path.name: path.read_bytes() for path in out.iterdir()}
    made.clear()
    moved = run.rename(tmp_path / "moved") / "generated"
    again = call("sample", f"checkpoint={tmp_path / 'moved'}", *arguments)
    assert again.status == 0, again.err
    assert f"{moved / 'samples.npz'} is done: 6 images of step 6" in again.out
    assert not made
    with_pngs = call("sample", f"checkpoint={tmp_path / 'moved'}", *arguments, "png=true")
    assert with_pngs.status == 0, with_pngs.err
    assert len(list((moved / "png").iterdir())) == 6
    with np.load(moved / "samples.npz") as file, np.load(io.BytesIO(contents["samples.npz"])) as first:
        assert np.array_equal(file["arr_0"], first["arr_0"])
    made.clear()
    assert "is done" in call("sample", f"checkpoint={tmp_path / 'moved'}", *arguments, "png=true").out
    assert not made


def test_two_at_once_are_refused(plain, tmp_path, made):
    """The second does nothing at all: what the first keeps on its way is still there."""
    out = tmp_path / "out"
    kept = SampleStore(out, "sample", {"seed": 0})
    with filling(out):
        kept.put([0, 1], {"images": np.zeros((2, 1, 8, 8), np.uint8)})
        for options in ([], ["seed=1"], ["overwrite=true"]):
            result = sample(plain, out, *options)
            assert result.status == 1
            assert result.err == (
                f"error: out={out}: another process is filling that folder; wait for it, or choose another out=\n"
            )
        measured = call("evaluate", f"checkpoint={plain}", "metrics=[class_accuracy]", "num_samples=6", f"out={out}")
        assert measured.status == 1
        assert "another process is filling that folder" in measured.err
        assert kept.get([0, 1]) is not None
        assert not made
    kept.remove()
    assert len(sampled(plain, out)) == 6


def test_the_model_is_rebuilt_from_what_its_checkpoint_says(plain, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    (run / "config.yaml").write_text("model: changed since\n")
    assert np.array_equal(sampled(run, tmp_path / "a"), sampled(plain, tmp_path / "b"))


def rewritten(run, place, change):
    """A copy of a run's checkpoint with another config in it."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    config = yaml.safe_load(checkpoint[RECORD]["config"])
    change(config)
    checkpoint[RECORD]["config"] = yaml.safe_dump(config)
    torch.save(checkpoint, place)
    return place


def test_what_only_trained_a_model_need_not_be_installed(plain, tmp_path):
    def change(config):
        for group in ("data", "optimizer", "ema", "trainer", "loader"):
            config[group]["_target_"] = "not.installed.here"
        config["loggers"] = {"mine": {"_target_": "not.installed.here"}}
        config["an_old_option"] = 3

    path = rewritten(plain, tmp_path / "model.ckpt", change)
    assert np.array_equal(sampled(path, tmp_path / "a"), sampled(plain, tmp_path / "b"))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("channels", 64, ["does not fit the config stored in it", "size mismatch"]),
        (
            "_target_",
            "not.installed.here",
            ["its config names 'not.installed.here' at model._target_", "add trust=[not]"],
        ),
        ("width", 3, ["cannot be rebuilt", "model.width: no such option"]),
    ],
)
def test_a_checkpoint_that_does_not_fit_its_own_config(plain, tmp_path, field, value, words):
    path = rewritten(plain, tmp_path / "model.ckpt", lambda config: config["model"].update({field: value}))
    result = sample(path, tmp_path / "out")
    assert result.status == 1
    for word in (str(path), *words):
        assert word in result.err
    assert not (tmp_path / "out").exists()


class Evil:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def bad_checkpoints(run, folder):
    whole = (run / "checkpoints" / "last.ckpt").read_bytes()
    (folder / "truncated").write_bytes(whole[: len(whole) // 2])
    (folder / "text").write_text("these are not weights\n" * 100)
    (folder / "empty").write_bytes(b"")
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, folder / "foreign")
    torch.save(torch.zeros(3), folder / "tensor")
    torch.save(torch.nn.Linear(2, 2), folder / "module")
    torch.save({RECORD: Evil(folder / "executed")}, folder / "evil")
    (folder / "evil_pickle").write_bytes(pickle.dumps({RECORD: Evil(folder / "executed")}))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "does not exist; give a run's folder or a .ckpt file"),
        ("folder", "is a folder without checkpoints/last.ckpt"),
        ("truncated", "cannot be read: it is damaged or no checkpoint at all"),
        ("text", "cannot be read: it is damaged or no checkpoint at all"),
        ("empty", "cannot be read: it is damaged or no checkpoint at all"),
        ("foreign", "was not written by Langevin"),
        ("tensor", "was not written by Langevin"),
        ("module", "cannot be read: it is damaged or no checkpoint at all"),
        ("evil", "cannot be read: it is damaged or no checkpoint at all"),
        ("evil_pickle", "cannot be read: it is damaged or no checkpoint at all"),
    ],
)
def test_a_bad_checkpoint(plain, name, words, tmp_path):
    (tmp_path / "folder").mkdir()
    bad_checkpoints(plain, tmp_path)
    result = sample(tmp_path / name, tmp_path / "out")
    assert result.status == 1
    assert str(tmp_path / name) in result.err
    assert words in result.err
    assert len(result.err) < 1500
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out").exists()


def test_the_evil_checkpoint_is_one(tmp_path):
    """Else nothing would be tested above."""
    torch.save({RECORD: Evil(tmp_path / "executed")}, tmp_path / "evil")
    torch.load(tmp_path / "evil", weights_only=False)
    assert (tmp_path / "executed").is_dir()


def test_sampling_that_was_asked_to_stop_resumes_to_the_same_images(labelled, tmp_path, monkeypatch, made):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = [f"checkpoint={labelled}", "num_samples=24", "batch_size=2", "sampler.steps=15", "accelerator=cpu"]
    log = tmp_path / "log"
    process = command("sample", *options, f"out={tmp_path / 'out'}", log=log)
    try:
        wait_for(lambda: len(list(tmp_path.glob("out/.sample-*/*.npz"))) >= 5, process, log)
    finally:
        process.terminate()
        status = process.wait(120)
    assert status == STATUS
    assert "interrupted by SIGTERM; rerun the same command to resume" in log.read_text()
    kept = 2 * len(list(tmp_path.glob("out/.sample-*/*.npz")))
    assert call("sample", *options, f"out={tmp_path / 'out'}").status == 0
    assert len(made) == 24 - kept
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["grid.png", "samples.npz"]
    assert call("sample", *options, f"out={tmp_path / 'undisturbed'}").status == 0
    again, whole = (np.load(tmp_path / name / "samples.npz")["arr_0"] for name in ("out", "undisturbed"))
    assert np.array_equal(again, whole)


@pytest.mark.slow
def test_sampling_on_one_process_starts_without_what_takes_seconds_to_import(labelled, tmp_path):
    """Lightning, torchvision, and torch's compiler, which building a network on "meta" would import.

    Likewise what a cascade imports beside that.
    """
    code = (
        "import sys; from langevin.commands.sample import main; main(); import langevin.assembly.cascade; "
        "slow = {'lightning', 'torchmetrics', 'torchvision', 'scipy', 'sklearn', 'torch._dynamo'}; "
        "print(*slow.intersection(sys.modules))"
    )
    arguments = [f"checkpoint={labelled}", "num_samples=2", "sampler.steps=2", f"out={tmp_path}", "accelerator=cpu"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "2 images of step 6" in done.stdout
    assert done.stdout.splitlines()[-1] == ""
