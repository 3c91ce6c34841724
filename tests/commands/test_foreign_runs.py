"""A stranger's run is data: whatever its record says, no command runs its code, or shows what this machine knows."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
import yaml
from helpers.commands import ROOT, TINY, call
from omegaconf import OmegaConf

from langevin.config.validate import CONF
from langevin.data.cifar10 import CIFAR10
from langevin.errors import UserError
from langevin.spec import DataSpec

SECRET = "a-secret-of-this-machine"
COLLECT = "torch.utils.collect_env.run"  # runs a shell command, and Hydra's own blocklist lets it pass


def touch(mark):
    return {"_target_": COLLECT, "command": f"touch {mark}"}


def put(path, node):
    """What changes a config by setting one of its values."""

    def change(config, mark):
        *parents, name = path.split(".")
        place = config
        for parent in parents:
            place[parent] = place.get(parent) or {}
            place = place[parent]
        place[name] = node(mark)

    return change


PAYLOADS = {
    "a component": put("schedule", touch),
    "a sampler": put("sampler", touch),
    "inside a component": put("conditions", lambda mark: {"a": touch(mark)}),
    "a plain field": put("model.channels", touch),
    "in a list": put("model.channel_multipliers", lambda mark: [touch(mark)]),
    "by a walk over attributes": put(
        "schedule", lambda mark: {"_target_": "langevin.commands.train.subprocess.getoutput", "cmd": f"touch {mark}"}
    ),
    "a class of another group": put(
        "schedule", lambda mark: {"_target_": "langevin.features.module.Module", "target": "os:system"}
    ),
    "Hydra's own keys": put("schedule._args_", lambda mark: [1]),
    "the environment": put("schedule.num_steps", lambda mark: "${oc.env:LANGEVIN_SECRET}"),
    "its own trust": lambda config, mark: config.update(trust=["torch"], schedule=touch(mark)),
}
TEXTS = {
    "an alias of itself": "a: &a [*a]\n",
    "an object of Python": "schedule: !!python/object/apply:os.system ['touch {mark}']\n",
    "a list": "[1, 2]\n",
    "no text": None,
}
COMMANDS = {
    "sample": ("sample", "checkpoint={evil}", "num_samples=2", "accelerator=cpu"),
    "evaluate": ("evaluate", "checkpoint={evil}", "metrics=[class_accuracy]", "num_samples=2", "accelerator=cpu"),
    "likelihood": ("evaluate", "checkpoint={evil}", "likelihoods=[discrete_vlb]", "num_images=1", "accelerator=cpu"),
    "export": ("convert", "export={evil}"),
    "weaker": ("sample", "checkpoint={good}", "guidance=autoguidance", "guidance.weaker={evil}", "accelerator=cpu"),
    "classifier": ("sample", "checkpoint={good}", "guidance=classifier", "guidance.classifier={evil}"),
    "features": (
        "evaluate",
        "samples={samples}",
        "data=digits",
        "metrics=[fid]",
        "features=classifier",
        "features.checkpoint={evil}",
    ),
    "in training": ("train", "experiment=digits", "guidance=autoguidance", "guidance.weaker={evil}", "name=victim"),
}
OUTPUTS = {"sample": "out", "evaluate": "out", "convert": "out", "train": "output_dir"}


@pytest.fixture
def evil(plain, tmp_path):
    """Makes a run of another by changing its record."""

    def make(change=None, text=None, record=None):
        checkpoint = torch.load(plain / "checkpoints" / "last.ckpt", weights_only=True)
        config = yaml.safe_load(checkpoint["langevin"]["config"])
        mark = tmp_path / "PWNED"
        if change is not None:
            change(config, mark)
            text = yaml.safe_dump(config)
        if text is not None:
            checkpoint["langevin"]["config"] = text.replace("{mark}", str(mark)) if isinstance(text, str) else text
        if record is not None:
            checkpoint.update(record(checkpoint))
        path = tmp_path / "evil.ckpt"
        torch.save(checkpoint, path)
        return path

    return make


@pytest.fixture
def refused(plain, tmp_path, monkeypatch):
    """Runs a command on a run, which must be refused by one line; that line."""
    monkeypatch.setenv("LANGEVIN_SECRET", SECRET)
    samples = tmp_path / "samples.npz"
    np.savez(samples, arr_0=np.zeros((4, 8, 8, 1), np.uint8))

    def run(name, path):
        command, *options = COMMANDS[name]
        options = [option.format(evil=path, good=plain, samples=samples) for option in options]
        result = call(command, *options, f"{OUTPUTS[command]}={tmp_path / 'out'}")
        assert result.status == 1, result.out
        assert not (tmp_path / "PWNED").exists()
        assert SECRET not in result.out + result.err
        assert "Traceback" not in result.err
        assert not any(SECRET.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
        (line,) = [line for line in result.err.splitlines() if line.startswith("error:")]
        return result.err[result.err.index(line) :]

    return run


@pytest.mark.parametrize("payload", PAYLOADS)
def test_sampling_refuses(payload, evil, refused):
    result = refused("sample", evil(PAYLOADS[payload]))
    assert "its config" in result


@pytest.mark.parametrize("payload", TEXTS)
def test_sampling_refuses_what_is_no_config(payload, evil, refused):
    checkpoint = evil(text=TEXTS[payload]) if TEXTS[payload] else evil(record=lambda _: {"langevin": {"spec": {}}})
    assert "its config" in refused("sample", checkpoint)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "sample"])
def test_every_command_refuses(command, evil, refused):
    result = refused(command, evil(PAYLOADS["a component"]))
    assert "names 'torch.utils.collect_env.run' at schedule._target_" in result
    assert "add trust=[torch]" in result


@pytest.mark.slow
@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "sample"])
def test_every_command_refuses_every_payload(command, payload, evil, refused):
    refused(command, evil(PAYLOADS[payload]))


@pytest.mark.parametrize("command", ["evaluate", "likelihood"])
def test_its_data_is_built_only_where_it_is_ours(command, evil, refused):
    assert "at data._target_" in refused(command, evil(put("data", touch)))


def test_what_is_not_built_may_be_anything(evil, tmp_path):
    """An optimizer of the user's own is no reason to refuse the samples."""
    path = evil(put("optimizer", touch))
    result = call("sample", f"checkpoint={path}", "num_samples=2", "accelerator=cpu", f"out={tmp_path / 'out'}")
    assert result.status == 0, result.err
    assert not (tmp_path / "PWNED").exists()
    assert "collect_env" not in json.dumps(json.loads(str(np.load(tmp_path / "out" / "samples.npz")["record"])))


OWN = """
from langevin.diffusion.schedules.linear import Linear

class Own(Linear):
    pass
"""


def test_code_of_one_s_own_needs_trust(evil, tmp_path, monkeypatch):
    (tmp_path / "trusted_package.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    path = evil(put("schedule._target_", lambda mark: "trusted_package.Own"))
    command = "sample", f"checkpoint={path}", "num_samples=2", "accelerator=cpu", f"out={tmp_path / 'out'}"
    result = call(*command)
    assert result.status == 1
    assert "'trusted_package.Own' at schedule._target_" in result.err
    assert "add trust=[trusted_package]" in result.err
    assert call(*command, "trust=[trusted]").status == 1
    trusted = call(*command, "trust=[trusted_package]")
    assert trusted.status == 0, trusted.err


RECORDS = {
    "no mapping": lambda checkpoint: {"langevin": "yes"},
    "a spec of text": lambda checkpoint: {"langevin": {**checkpoint["langevin"], "spec": "yes"}},
    "an unknown spec": lambda checkpoint: {"langevin": {**checkpoint["langevin"], "spec": {"size": 8}}},
    "negative channels": lambda checkpoint: {
        "langevin": {**checkpoint["langevin"], "spec": {**DataSpec.of_images(1, 8, None).plain(), "shape": [-1, 8, 8]}}
    },
    "no weights": lambda checkpoint: {"state_dict": [1]},
    "no step": lambda checkpoint: {"global_step": "six"},
    "weights that are numbers": lambda checkpoint: {"state_dict": dict.fromkeys(checkpoint["state_dict"], 1.0)},
}


@pytest.mark.parametrize("record", RECORDS)
def test_a_malformed_record_is_one_error(record, evil, refused):
    assert "evil.ckpt" in refused("sample", evil(record=RECORDS[record]))


TEXTS_BEYOND = {
    "nested without end": "a: " + "[" * 200 + "]" * 200,
    "a number beyond all bounds": "seed: " + "9" * 40,
    "a path of Python": "seed: !!python/object/apply:pathlib.PosixPath [a]",
    "bytes": "seed: !!binary aGk=",
}


@pytest.mark.parametrize("text", TEXTS_BEYOND)
def test_values_beyond_those_of_a_config_are_refused(text, evil, refused):
    assert "its config" in refused("sample", evil(text=TEXTS_BEYOND[text]))


@pytest.mark.parametrize(
    "change",
    [
        put("rescalings", lambda mark: {"a.b": {"_target_": "x"}}),
        put("rescalings", lambda mark: "schedule"),
        put("schedule.num_steps", lambda mark: 10**12),
    ],
    ids=["a dotted name", "a text for a part", "a size beyond all bounds"],
)
def test_a_config_that_cannot_be_built_is_one_error(change, evil, refused):
    assert "evil.ckpt" in refused("sample", evil(change))


def test_a_compressed_checkpoint_is_not_unfolded(plain, tmp_path):
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + bytes(10_000_000))
    result = call("sample", f"checkpoint={path}", "accelerator=cpu")
    assert result.status == 1
    assert "it is compressed" in result.err


def test_a_linked_folder_of_a_run_loses_nothing(tmp_path):
    """A run folder may be a stranger's, and its `samples` a link to anybody's files."""
    assert call("train", *TINY, f"output_dir={tmp_path}", "name=run").status == 0
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_text("mine")
    shutil.rmtree(tmp_path / "run" / "samples")
    (tmp_path / "run" / "samples").symlink_to(home)
    assert call("train", *TINY, "trainer.max_steps=3", f"output_dir={tmp_path}", "name=run").status == 0
    assert (home / ".bashrc").read_text() == "mine"


def test_a_lock_that_is_a_link_is_refused(plain, tmp_path):
    precious, out = tmp_path / "precious", tmp_path / "out"
    precious.write_text("mine")
    out.mkdir()
    (out / ".out.lock").symlink_to(precious)
    result = call("sample", f"checkpoint={plain}", f"out={out}", "num_samples=2", "accelerator=cpu")
    assert result.status == 1
    assert "is a link" in result.err
    assert precious.read_text() == "mine"


def test_a_pipe_in_a_run_holds_up_nobody(plain, tmp_path):
    run = shutil.copytree(plain, tmp_path / "runs" / "run")
    for name in ("metrics.csv", "sessions.json", "data.json"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    command = [sys.executable, "-m", "langevin.runs", str(run.parent)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    assert "run" in ended.stdout


SIZES = {
    "wide": (put("model.channels", lambda mark: 10**6), "size mismatch: "),
    "deep": (put("model.blocks_per_level", lambda mark: 10**9), "tensors that are stored"),
    "many steps": (put("schedule.num_steps", lambda mark: 10**9), "schedule.num_steps: is 1000000000; allowed: "),
}
CLAIM = """
import resource, sys
limit = 3 << 30  # bytes; torch alone takes less than one of them, 10**6 channels take terabytes
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
sys.argv[0] = "sample.py"
from langevin.commands.sample import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_are_not_those_of_its_weights_take_no_memory(name, evil, tmp_path):
    change, word = SIZES[name]
    ended = subprocess.run(
        [sys.executable, "-c", CLAIM, f"checkpoint={evil(change)}", "accelerator=cpu", f"out={tmp_path / 'out'}"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert word in ended.stderr
    assert "evil.ckpt" in ended.stderr
    assert "memory" not in ended.stderr


def test_weights_that_claim_more_than_the_file_are_refused(evil, refused):
    """A tensor may show one number of a file over and over."""

    def widened(checkpoint):
        state = dict(checkpoint["state_dict"])
        name = next(name for name, value in state.items() if name.startswith("ema.network.") and value.ndim == 4)
        state[name] = torch.zeros(1).expand(10**5, 10**5, *state[name].shape[2:])
        return {"state_dict": state}

    assert "the weights claim to be larger than the whole file" in refused("sample", evil(record=widened))


@pytest.mark.parametrize(
    "measured",
    ["metrics=[class_accuracy]", pytest.param("likelihoods=[discrete_vlb]", marks=pytest.mark.slow)],
)
def test_where_something_is_written_no_stored_config_decides(measured, evil, tmp_path, monkeypatch):
    asked = []

    def download(source):
        asked.append(source.download_dir)
        raise UserError("data.path=null: there is no network")

    monkeypatch.setattr(CIFAR10, "_download", download)
    data = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "cifar10.yaml"))
    path = evil(put("data", lambda mark: {**data, "image_size": 8, "download_dir": str(mark)}))
    command = "evaluate", f"checkpoint={path}", measured, "num_samples=2", "accelerator=cpu", f"out={tmp_path / 'out'}"
    assert "there is no network" in call(*command).err
    assert "there is no network" in call(*command, f"data.download_dir={tmp_path / 'mine'}").err
    assert asked == [None, str(tmp_path / "mine")]
