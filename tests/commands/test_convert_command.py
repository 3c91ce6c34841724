import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from diffusers import UNet2DModel
from helpers.commands import ROOT, call
from helpers.pipelines import ddim_folder, ddpm_folder, unet
from interop.peer_states import edm_state, openai_state
from safetensors import safe_open

from commands.test_sample_command import Evil
from langevin.assembly.saved import load_model
from langevin.runs import find_runs
from langevin.spec import DataSpec

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """A DDPMPipeline as diffusers saves it."""
    place = tmp_path_factory.mktemp("diffusers") / "ddpm"
    ddpm_folder(place, unet())
    return place


@pytest.fixture(scope="package")
def imported(folder, tmp_path_factory):
    """The run that it becomes."""
    out = tmp_path_factory.mktemp("imported") / "run"
    assert convert(f"import={folder}", f"out={out}").status == 0
    return out


@pytest.fixture(scope="package")
def wide(train):
    """A class-conditional run that diffusers can hold: its GroupNorm has 32 groups everywhere."""
    return train("wide", "model.channels=128", "model.channel_multipliers=[1]", "conditions=[class_label]")


def convert(*overrides):
    result = call("convert", *overrides)
    assert "Traceback" not in result.err
    return result


def config_of(run):
    return yaml.safe_load((run / "config.yaml").read_text())


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_from_a_shell(folder, tmp_path):
    """Import, sample, export: the three commands as they are typed."""
    run, back = tmp_path / "run", tmp_path / "back"
    for command in (
        ("convert.py", f"import={folder}", f"out={run}"),
        ("sample.py", f"checkpoint={run}", "num_samples=2", "sampler.steps=2"),
        ("convert.py", f"export={run}", f"out={back}"),
    ):
        done = subprocess.run([sys.executable, ROOT / command[0], *command[1:]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert files(run) == ["checkpoints/last.ckpt", "config.yaml", "generated/grid.png", "generated/samples.npz"]
    with np.load(run / "generated" / "samples.npz") as made:
        assert made["arr_0"].shape == (2, 8, 8, 1)
    assert files(back) == sorted(["langevin.json", *files(folder)])
    before, after = (safetensors.torch.load_file(place / "unet" / WEIGHTS) for place in (folder, back))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_sampling(imported, tmp_path):
    result = call("sample", f"checkpoint={imported}", f"out={tmp_path}", "num_samples=2", "sampler.steps=2")
    assert result.status == 0, result.err
    with np.load(tmp_path / "samples.npz") as made:
        assert made["arr_0"].shape == (2, 8, 8, 1)


def test_the_run_says_what_is_known_and_no_more(imported):
    config = config_of(imported)
    parts = {"task", "model", "codec", "text", "process", "schedule", "parameterization", "variance"}
    assert set(config) == parts | {"sampler", "timestep_spacing", "thresholding", "guidance"}
    ((run,),) = find_runs(imported).values()
    assert (run.state, run.note) == ("imported", "model=unet schedule=linear parameterization=eps"), "as it is listed"
    assert config["sampler"] == {"_target_": "langevin.samplers.ancestral.Ancestral", "steps": None}
    checkpoint = torch.load(imported / "checkpoints" / "last.ckpt", weights_only=True)
    assert yaml.safe_load(checkpoint["langevin"]["config"]) == config
    assert checkpoint["langevin"]["spec"] == DataSpec.of_images(1, 8, None).plain()
    assert checkpoint["global_step"] == 0


def test_parts_and_fields_chosen_otherwise(folder, tmp_path):
    chosen = ("sampler=ddim", "sampler.steps=7", "timestep_spacing=trailing", "guidance=none", "model.dropout=0.2")
    assert convert(f"import={folder}", f"out={tmp_path / 'run'}", *chosen).status == 0
    config = config_of(tmp_path / "run")
    assert config["sampler"] == {"_target_": "langevin.samplers.ddim.DDIM", "steps": 7, "eta": 0.0}
    assert config["timestep_spacing"] == {"_target_": "langevin.samplers.timestep_spacing.Trailing"}
    assert config["model"]["dropout"] == 0.2


def filled(state):
    """A state dict with random numbers where there are only shapes."""
    return {name: torch.randn(tensor.shape) if tensor.is_meta else tensor for name, tensor in state.items()}


def test_weights_of_openai(tmp_path):
    flags = "--image_size 8 --num_channels 128 --num_res_blocks 1 --channel_mult 1,1 --attention_resolutions 8,4"
    torch.save(filled(openai_state(flags)), tmp_path / "model.pt")
    result = convert(f"import={tmp_path / 'model.pt'}", f"flags={flags}", f"out={tmp_path / 'run'}", "sampler.steps=9")
    assert result.status == 0, result.err
    config = config_of(tmp_path / "run")
    assert config["model"]["attention_resolutions"] == [8, 4]
    assert config["sampler"]["steps"] == 9
    load_model(tmp_path / "run" / "checkpoints" / "last.ckpt")


def test_weights_of_edm(tmp_path):
    torch.save(filled(edm_state("SongUNet", size=8, attends=())), tmp_path / "model.pt")
    result = convert(f"import={tmp_path / 'model.pt'}", f"out={tmp_path / 'run'}")
    assert result.status == 0, result.err
    assert config_of(tmp_path / "run")["parameterization"]["_target_"].endswith("EDMParameterization")
    load_model(tmp_path / "run" / "checkpoints" / "last.ckpt")


def test_another_sampler_has_its_own_fields(tmp_path):
    """Not the 50 steps of the DDIM that it takes the place of."""
    ddim_folder(tmp_path / "ddim", unet())
    assert convert(f"import={tmp_path / 'ddim'}", f"out={tmp_path / 'run'}", "sampler=ancestral").status == 0
    assert config_of(tmp_path / "run")["sampler"]["steps"] is None


def test_a_network_alone_needs_to_be_given_what_it_predicts(folder, tmp_path):
    place = f"import={folder / 'unet'}"
    result = convert(place, f"out={tmp_path / 'run'}")
    assert result.status == 1
    assert "schedule: is not specified by the imported model; choose it: schedule=NAME" in result.err
    assert "parameterization: is not specified by the imported model" in result.err
    result = convert(place, f"out={tmp_path / 'run'}", "schedule.num_steps=10", "parameterization=v")
    assert "1 mistake in the config:\n  schedule: is not specified" in result.err
    assert not (tmp_path / "run").exists()
    result = convert(place, f"out={tmp_path / 'run'}", "schedule=cosine", "parameterization=v")
    assert result.status == 0, result.err
    config = config_of(tmp_path / "run")
    assert config["schedule"]["_target_"].endswith("Cosine")
    assert config["parameterization"]["_target_"].endswith("V")


def test_evaluation(imported):
    likelihood = ("evaluate", f"checkpoint={imported}", "likelihoods=[discrete_vlb]", "num_images=2")
    assert "data: must be chosen: data=NAME" in call(*likelihood).err
    result = call(*likelihood, "data=digits")
    assert result.status == 0, result.err
    assert json.loads((imported / "likelihood.json").read_text())["step"] == 0


def test_the_ema_weights_of_a_run(wide, tmp_path):
    """In diffusers' own network they say what they say in ours, to every label and to none."""
    result = convert(f"export={wide}", f"out={tmp_path / 'folder'}", "timestep_spacing=leading")
    assert result.status == 0, result.err
    model = load_model(wide / "checkpoints" / "last.ckpt")
    theirs = UNet2DModel.from_pretrained(tmp_path / "folder" / "unet", low_cpu_mem_usage=False).eval()
    x, t = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 500, 999])
    labels = torch.tensor([0, 5, 9, -1])
    with torch.no_grad():
        expected = model.denoiser.network(x, t.float(), {"label": labels})
        torch.testing.assert_close(theirs(x, t, labels % 11).sample, expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-3
    scheduler = json.loads((tmp_path / "folder" / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["_class_name"], scheduler["timestep_spacing"]) == ("DDIMScheduler", "leading")


def test_weights_under_our_own_names(wide, tmp_path):
    assert convert(f"export={wide / 'checkpoints' / 'last.ckpt'}", f"out={tmp_path / 'model.safetensors'}").status == 0
    checkpoint = torch.load(wide / "checkpoints" / "last.ckpt", weights_only=True)
    prefix = "ema.network."
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    expected = {name: tensor for name, tensor in checkpoint["state_dict"].items() if name.startswith(prefix)}
    assert {prefix + name for name in weights} == expected.keys()
    assert all(torch.equal(weights[name.removeprefix(prefix)], tensor) for name, tensor in expected.items())
    record = checkpoint["langevin"]
    assert (metadata["config"], metadata["version"], metadata["step"]) == (record["config"], record["version"], "6")
    assert json.loads(metadata["spec"]) == record["spec"]


def test_what_is_there_stays_unless_overwrite_is_set(folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path, tmp_path / "file"):
        result = convert(f"import={folder}", f"out={out}")
        assert result.status == 1
        assert result.err == f"error: out={out}: is there already; choose another out=, or overwrite=true\n"
    assert files(tmp_path) == ["file"]
    assert convert(f"import={folder}", f"out={tmp_path}", "overwrite=true").status == 0
    assert files(tmp_path) == ["checkpoints/last.ckpt", "config.yaml", "file"]
    (tmp_path / "empty").mkdir()
    assert convert(f"export={tmp_path}", f"out={tmp_path / 'empty'}").status == 0


def bad_places(folder, places):
    """Folders and files that are not what they should be."""
    for name in ("truncated", "pickle", "weightless", "damaged"):
        shutil.copytree(folder, places / name)
    whole = (folder / "unet" / WEIGHTS).read_bytes()
    (places / "truncated" / "unet" / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    for name in ("pickle", "weightless"):
        (places / name / "unet" / WEIGHTS).unlink()
    torch.save(
        {"conv_in.weight": Evil(places / "executed")}, places / "pickle" / "unet" / "diffusion_pytorch_model.bin"
    )
    (places / "damaged" / "unet" / "config.json").write_text("{")
    (places / "empty").mkdir()
    torch.save(torch.nn.Linear(2, 2), places / "module.pt")
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, places / "nested.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), places / "other.pt")
    torch.save({"time_embed.0.weight": torch.zeros(4, 4)}, places / "openai.pt")
    shutil.copy(folder / "unet" / WEIGHTS, places / "alone.safetensors")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "does not exist; allowed: a folder of diffusers"),
        ("empty", "holds no config.json; allowed: a folder of diffusers"),
        ("truncated", f"{WEIGHTS} cannot be read: the file is damaged, or holds more than tensors"),
        ("pickle", "diffusion_pytorch_model.bin cannot be read: the file is damaged, or holds more than tensors"),
        ("weightless", "holds no weights; allowed: diffusion_pytorch_model.safetensors or diffusion_pytorch_model.bin"),
        ("damaged", "config.json cannot be read: "),
        ("module.pt", "cannot be read: the file is damaged, or holds more than tensors"),
        ("nested.pth", "nested.pth are no state dict; give a file that holds names and tensors only"),
        ("other.pt", "weights of no network that is known; allowed: a folder of diffusers"),
        ("alone.safetensors", "are weights of diffusers; give the folder that holds their config.json too"),
        ("openai.pt", "flags: must be given for OpenAI's"),
    ],
)
def test_a_bad_place(folder, name, words, tmp_path):
    bad_places(folder, tmp_path)
    result = convert(f"import={tmp_path / name}", f"out={tmp_path / 'run'}")
    assert result.status == 1
    assert words in result.err
    assert str(tmp_path / name) in result.err
    assert result.err.count("\n") == 1
    assert len(result.err) < 1000
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["flags=--image_size 64"], "flags=--image_size 64: goes with OpenAI's weights, which"),
        (["flags=--image_size 64 --attention_resolutions 32,16,8"], "resolutions 32,16,8: goes with OpenAI's weights"),
        (["sampler.step=3"], "sampler.step: no such option (did you mean steps?)"),
        (["sampler.steps=0"], "sampler.steps: is 0; allowed: a whole number, at least 1"),
        (["smapler=ddim"], "smapler: no such option (did you mean sampler?)"),
        (["sampler=eulr"], "sampler=eulr: no such option (did you mean euler?); allowed: ancestral, "),
        (["optimizer=adam"], "optimizer: no such option; allowed: model, classifier, autoencoder"),
        (["optimizer.lr=1"], "optimizer: no such option; allowed: import, flags, export, ema_width, out"),
        (["model=dit_s"], "model: is what is imported; leave it out, single fields may be set"),
        (
            ["model.channels=160"],
            "weights: do not fit the model of the config: 'first.weight' is (128, 1,",
        ),
        (["conditions=[class_label]"], "conditions.class_label: needs labels, but the data has none"),
        (
            ["variance=learned_range"],
            "weights: do not fit the model of the config: 'last.weight' is (1, 128, 3, 3), not",
        ),
        (["rescalings=[zero_terminal_snr]"], "parameterization: Eps cannot recover the image at the schedule's last"),
        (["classifier.dropout=0.1"], "classifier: is not used by a denoiser; leave it out"),
        (["classifier=half_unet"], "classifier: is what is imported; leave it out, single fields may be set"),
        (["export=somewhere"], "import: give either import=FOLDER_OR_FILE or export=RUN_OR_CHECKPOINT, and not both"),
        (["overwrite=3"], "overwrite: is 3; allowed: true or false"),
    ],
)
def test_a_mistake_in_an_import(folder, overrides, words, tmp_path):
    result = convert(f"import={folder}", f"out={tmp_path / 'run'}", *overrides)
    assert result.status == 1
    assert words in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("run", "overrides", "words"),
    [
        ("plain", [], "model.channel_multipliers is [2]; allowed: 1 first in diffusers' UNet2DModel"),
        ("imported", ["schedule=cosine"], "schedule: goes with import=; an exported model is as it is"),
        ("imported", ["model.dropout=0.5"], "model: goes with import=; an exported model is as it is"),
        ("imported", ["flags=--image_size 8"], "flags: goes with import=; leave it out"),
        (
            "imported",
            ["timestep_spacing=karras"],
            "timestep_spacing is Karras; allowed: trailing, uniform, leading in diffusers",
        ),
        ("imported", ["sampler.steps=2000"], "sampler.steps: is 2000; allowed: at least 1 and at most"),
        ("imported", ["sampler.eta=1"], "sampler.eta: no such option; allowed: steps"),
    ],
)
def test_a_mistake_in_an_export(run, overrides, words, tmp_path, request):
    result = convert(f"export={request.getfixturevalue(run)}", f"out={tmp_path / 'folder'}", *overrides)
    assert result.status == 1
    assert words in result.err
    assert not (tmp_path / "folder").exists()


def test_what_must_be_given(imported, tmp_path):
    assert "out: must be given; allowed: a text" in convert(f"export={imported}").err
    assert "import: give either import=FOLDER_OR_FILE or export=" in convert(f"out={tmp_path / 'out'}").err
    result = convert(f"export={tmp_path}", f"out={tmp_path / 'out'}")
    assert f"export={tmp_path} is a folder without checkpoints/last.ckpt" in result.err
    assert files(tmp_path) == []
