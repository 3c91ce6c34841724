"""Runs as objects: what the commands do, from Python."""

import json
import os
import signal
import subprocess
import sys

import hydra
import numpy as np
import pytest
import torch
from helpers.commands import CLASSIFIER, TINY, call, composed
from helpers.saved import save_untrained
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import langevin
from langevin.config.validate import CONF
from langevin.spec import DataSpec
from langevin.training.callbacks.interruption import Interruption

pytestmark = pytest.mark.integration

IMAGES = DataSpec.of_images(1, 8, 10)
POINTS = DataSpec((2,), None, "langevin.modalities.vector.VectorModality")


def save(folder, *overrides, spec=IMAGES):
    (folder / "checkpoints").mkdir(parents=True)
    cfg, _ = composed("train", *overrides)
    save_untrained(folder / "checkpoints" / "last.ckpt", cfg, spec)
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return save(tmp_path_factory.mktemp("labelled") / "run", *TINY, "conditions=[class_label]")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save(tmp_path_factory.mktemp("plain") / "run", *TINY)


@pytest.fixture(scope="module")
def run(labelled):
    return langevin.load(labelled)


def test_the_import_alone_costs_nothing():
    script = (
        "import sys, time; start = time.process_time(); import langevin; spent = time.process_time() - start\n"
        "assert spent < 0.05, spent\n"
        "assert not {'torch', 'numpy', 'hydra', 'omegaconf', 'lightning'} & set(sys.modules), sys.modules\n"
        "assert {'load', 'train', 'cascade', 'Cascade', 'Run', 'Samples', 'UserError'} <= set(dir(langevin))\n"
        "langevin.UserError\n"
        "from importlib.resources import files; assert (files(langevin) / 'py.typed').is_file()\n"
        "assert 'torch' not in sys.modules and not hasattr(langevin, 'nothing')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_samples_are_those_of_the_command(run, labelled, tmp_path):
    made = run.sample(
        7, labels=np.array([3, 1]), sampler="ddim", steps=3, guidance=1.5, seed=2, batch_size=4, device="cpu",
        overrides=["sampler.eta=0.5"],
    )  # fmt: skip
    chosen = ("labels=[3,1]", "sampler=ddim", "sampler.steps=3", "guidance=classifier_free", "guidance.scale=1.5")
    chosen += ("sampler.eta=0.5", "num_samples=7", "seed=2", "batch_size=4", "accelerator=cpu")
    out = tmp_path / "command"
    result = call("sample", f"checkpoint={labelled}", f"out={out}", *chosen)
    assert result.status == 0, result.err
    made.save(tmp_path / "api")
    with np.load(out / "samples.npz") as wanted, np.load(tmp_path / "api" / "samples.npz") as saved:
        assert made.samples.dtype == np.uint8
        assert made.samples.std() > 10
        assert np.array_equal(made.samples, wanted["arr_0"])
        assert made.labels.tolist() == wanted["arr_1"].tolist() == [3, 1, 3, 1, 3, 1, 3]
        assert made.record == json.loads(str(wanted["record"]))
        assert {name: saved[name].tolist() for name in saved} == {name: wanted[name].tolist() for name in wanted}
    assert (out / "grid.png").read_bytes() == (tmp_path / "api" / "grid.png").read_bytes() == made._repr_png_()


def test_the_samples_of_a_run_do_not_depend_on_what_was_made_before(run):
    first = run.sample(3, device="cpu").samples
    run.sample(2, sampler="euler", steps=2, guidance="none", device="cpu")
    assert np.array_equal(run.sample(3, device="cpu").samples, first)


def test_samples_of_vectors_are_numbers(tmp_path):
    folder = save(tmp_path / "run", "data=toy", "model=mlp", "sampler.steps=2", spec=POINTS)
    made = langevin.load(folder / "checkpoints" / "last.ckpt").sample(5, device="cpu")
    assert (made.samples.shape, made.samples.dtype, made.labels, len(made)) == ((5, 2), np.float32, None, 5)
    assert made._repr_png_().startswith(b"\x89PNG")


def test_the_trajectory_is_that_of_the_command(run, labelled, tmp_path):
    made = run.sample(9, seed=2, batch_size=4, device="cpu", steps=5, trajectory=3)
    chosen = ("num_samples=9", "seed=2", "batch_size=4", "accelerator=cpu", "sampler.steps=5", "trajectory=3")
    result = call("sample", f"checkpoint={labelled}", f"out={tmp_path / 'command'}", *chosen)
    assert result.status == 0, result.err
    made.save(tmp_path / "api")
    paths = (tmp_path / each / "trajectory.png" for each in ("command", "api"))
    assert len({path.read_bytes() for path in paths}) == 1
    assert run.sample(2, steps=1, device="cpu").trajectory is None
    with pytest.raises(langevin.UserError, match=r"trajectory: is 1; allowed: .*at least 2"):
        run.sample(2, trajectory=1)


def test_choices_are_those_that_suit_the_model(run, plain, labelled):
    assert run.choices("guidance").keys() == {"classifier_free"}
    assert langevin.load(plain).choices("guidance") == {}
    samplers = run.choices("sampler")
    assert samplers["ddim"] == {"_target_": "langevin.samplers.ddim.DDIM", "steps": 50, "eta": 0.0}
    assert {"ancestral", "heun", "unipc"} <= samplers.keys()
    with pytest.raises(langevin.UserError, match="group is 'model'; allowed: sampler, "):
        run.choices("model")
    assert langevin.load(plain).class_names is None
    assert run.class_names == tuple("0123456789")
    split = {"number": 2, "class_names": [f"digit {each}" for each in range(10)], "sha256": ""}
    (labelled / "data.json").write_text(json.dumps({"splits": {"train": split}}))
    assert run.class_names[3] == "digit 3"


def test_a_sampler_that_the_schedule_does_not_allow_is_no_choice(tmp_path):
    found = langevin.load(save(tmp_path / "run", *TINY, "formulation=edm")).choices("sampler")
    assert "heun" in found
    assert "ancestral" not in found  # it takes every step of a schedule, and this one has none


def test_values_are_those_of_the_command(run, labelled, tmp_path):
    fewer = "metrics.energy_distance.max_reference=100"
    found = run.evaluate(["class_accuracy", "energy_distance"], 20, steps=3, device="cpu", overrides=[fewer])
    chosen = ("metrics=[class_accuracy,energy_distance]", fewer, "sampler.steps=3", "num_samples=20")
    result = call("evaluate", f"checkpoint={labelled}", *chosen, "accelerator=cpu", f"out={tmp_path}")
    assert result.status == 0, result.err
    wanted = json.loads((tmp_path / "metrics.json").read_text())
    assert found.values == wanted["metrics"]
    assert found.values["energy_distance@20"] > 0
    assert json.loads(json.dumps(found.protocol)) == wanted["protocol"]
    assert not (labelled / "evaluations").exists() or not list((labelled / "evaluations").iterdir())


def test_a_run_shows_its_model(run):
    assert (run.step, run.spec.shape, run.config["model"]["channels"]) == (0, (1, 8, 8), 32)
    assert type(run.config) is dict
    prediction = run.model(torch.zeros(2, 1, 8, 8), torch.tensor(10.0, dtype=torch.float64), {"label": torch.arange(2)})
    assert prediction.x.shape == (2, 1, 8, 8)


def test_training_is_that_of_the_command_and_leaves_the_process_as_it_was(tmp_path):
    def state():
        arguments, environment = list(sys.argv), dict(os.environ)
        return arguments, environment, signal.getsignal(signal.SIGINT), GlobalHydra.instance().hydra

    overrides = [*TINY, f"output_dir={tmp_path}"]
    # The program may use Hydra for itself.
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        before, job = state(), HydraConfig.instance().cfg
        trained = langevin.train([*overrides, "name=api"])
        assert (state(), HydraConfig.instance().cfg) == (before, job)
        assert hydra.compose("sample", ["checkpoint=x"]).checkpoint == "x"
    assert call("train", *overrides, "name=command").status == 0
    by_command = langevin.load(tmp_path / "command")
    assert trained.step == by_command.step == 2
    weights = by_command.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in trained.model.state_dict().items())
    resumed = langevin.train([*overrides, "name=api", "trainer.max_steps=3"])
    assert (resumed.checkpoint, resumed.step) == (trained.checkpoint, 3)


def test_an_interrupted_training_is_resumed_by_the_same_call(tmp_path, monkeypatch):
    before_step = Interruption.before_step

    def interrupted(self, trainer, pl_module):
        if trainer.global_step == 1:
            signal.raise_signal(signal.SIGINT)
        before_step(self, trainer, pl_module)

    overrides = [*TINY, f"output_dir={tmp_path}", "name=run"]
    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "before_step", interrupted)
        with pytest.raises(KeyboardInterrupt, match="at step 1"):
            langevin.train(overrides)
    assert langevin.load(tmp_path / "run").step == 1
    assert langevin.train(overrides).step == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n": 0}, "n: is 0; allowed: a whole number, at least 1"),
        ({"sampler": "dimm"}, r"sampler is 'dimm'; no such option \(did you mean ddim\?\)"),
        ({"steps": -1}, "steps: is -1"),
        ({"guidance": -1.0}, "guidance: is -1.0"),
        ({"guidance": "strong"}, "guidance is 'strong'; no such option; allowed: autoguidance"),
        ({"labels": [0, 10]}, r"labels is \[0, 10\]; allowed: whole numbers from 0 to 9"),
        ({"seed": -1}, "seed: is -1"),
        ({"device": "gpu7"}, "device is 'gpu7'"),
        ({"overrides": ["sampler.eta=2"]}, "sampler.eta: is 2"),
        ({"overrides": ["out=there"]}, "overrides: 'out=there' cannot be set here"),
        ({"overrides": "sampler.eta=1"}, "overrides is 'sampler.eta=1'; allowed: a list"),
    ],
)
def test_mistakes_in_sampling_are_reported_by_their_parameters(run, wrong, message):
    with pytest.raises(langevin.UserError, match=message):
        run.sample(**{"n": 2, "device": "cpu", **wrong})


def test_an_unconditional_model_takes_no_labels(plain):
    unconditional = langevin.load(plain)
    with pytest.raises(langevin.UserError, match=r"labels is \[1\]; the model is not conditioned on labels"):
        unconditional.sample(2, labels=1, device="cpu")
    with pytest.raises(langevin.UserError, match="guidance"):
        unconditional.sample(2, guidance=2.0, device="cpu")


def test_mistakes_in_evaluating_are_reported(run):
    for wrong, message in (
        ({"metrics": ["fidd"]}, "metrics is 'fidd'"),
        ({"metrics": "fid", "data": "digit"}, "data is 'digit'"),
        ({"metrics": "fid", "num_samples": 0}, "num_samples: is 0"),
        ({"metrics": "class_accuracy", "reference": "nowhere.npz"}, "reference=nowhere.npz"),
    ):
        with pytest.raises(langevin.UserError, match=message):
            run.evaluate(**{"num_samples": 10, "device": "cpu", **wrong})


def test_what_is_no_run_is_not_loaded(labelled, tmp_path):
    for path, message in (
        ("nowhere", "path=nowhere does not exist"),
        (tmp_path, "without checkpoints/last.ckpt"),
        ("hf://someone/run", "path is hf://someone/run; allowed: a run's folder"),
        (
            save(tmp_path / "classifier", *CLASSIFIER),
            "holds a classifier",
        ),
    ):
        with pytest.raises(langevin.UserError, match=message):
            langevin.load(path)
    stored = torch.load(labelled / "checkpoints" / "last.ckpt", weights_only=True)
    config = stored["langevin"]["config"]
    stored["langevin"]["config"] = config.replace("langevin.networks.unet.UNet", "builtins.dict")
    torch.save(stored, tmp_path / "foreign.ckpt")
    with pytest.raises(langevin.UserError, match=r"builtins\.dict.*trust=\[builtins\]"):
        langevin.load(tmp_path / "foreign.ckpt")


def test_mistakes_in_training_are_raised(tmp_path):
    for overrides, message in (
        (["schedule=cosin"], r"schedule=cosin: no such option \(did you mean cosine\?\)"),
        (["schedule.steps=3", "seed=-1"], "2 mistakes in the config"),
        (["seed=0,1"], "seed=0,1"),
        (["task=classifier"], "task: trains a classifier"),
        ("seed=1", "overrides is 'seed=1'; allowed: a list"),
    ):
        with pytest.raises(langevin.UserError, match=message):
            langevin.train(overrides if isinstance(overrides, str) else [*overrides, f"output_dir={tmp_path}"])
    assert not list(tmp_path.iterdir())
