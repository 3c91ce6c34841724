"""Autoencoders of other libraries as runs of task=autoencoder, and these as folders of diffusers."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from helpers.autoencoders import compvis_state, save
from helpers.commands import TINY, call

from commands.test_convert_command import config_of, convert, files
from langevin.assembly.saved import load_trained
from langevin.runs import find_runs, print_runs
from langevin.spec import DataSpec

CARD = "---\nlicense: creativeml-openrail-m\nbase_model:\n- CompVis/sd\ntags: [a, b]\n---\n# A model\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline's folder with its card, and its vae/."""
    place = tmp_path_factory.mktemp("diffusers") / "pipeline"
    save(place / "vae", "kl")
    (place / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline", "_name_or_path": "sd"}')
    (place / "README.md").write_text(CARD)
    (place / "LICENSE").write_text("Do no harm.\n")
    return place


@pytest.fixture(scope="module")
def imported(folder, tmp_path_factory):
    """The run that its vae/ becomes."""
    out = tmp_path_factory.mktemp("imported") / "run"
    result = convert(f"import={folder / 'vae'}", f"out={out}", "autoencoder.kl_weight=1e-3")
    assert result.status == 0, result.err
    assert f"for images of (3, 16, 16); langevin train codec=autoencoder codec.run={out}\n" in result.out
    assert "  its pipelines scale latents by 0.18215, as codec.scaling=0.18215 does" in result.out
    return out


def weights_equal(run, theirs):
    """Whether a run decodes as a network of diffusers does."""
    ours = load_trained(run / "checkpoints" / "last.ckpt").model.network
    z = torch.randn(1, *ours.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.decode(z), theirs.decode(z).sample, rtol=0, atol=1e-5)


def test_the_run(folder, imported):
    assert files(imported) == ["checkpoints/last.ckpt", "config.yaml", "origin.json"]
    config = config_of(imported)
    assert set(config) == {"task", "codec", "autoencoder"}
    assert config["autoencoder"]["kl_weight"] == 1e-3
    record = torch.load(imported / "checkpoints" / "last.ckpt", weights_only=True)["langevin"]
    assert record["spec"] == DataSpec.of_images(3, 16, None).plain()
    weights_equal(imported, AutoencoderKL.from_pretrained(folder / "vae").eval())


def test_its_origin_is_kept(imported):
    """Of the pipeline that it is a part of; in the checkpoint too, which may travel alone."""
    origin = json.loads((imported / "origin.json").read_text())
    assert origin == {
        "license": "creativeml-openrail-m",
        "base_model": ["CompVis/sd"],
        "name": "sd",
        "license_text": "Do no harm.\n",
        "class": "AutoencoderKL",
        "scaling_factor": 0.18215,
    }
    assert torch.load(imported / "checkpoints" / "last.ckpt", weights_only=True)["langevin"]["origin"] == origin
    ((run,),) = find_runs(imported).values()
    assert run.state == "imported"
    assert (run.note, run.license) == ("autoencoder=KLAutoencoder", "creativeml-openrail-m")


def test_export_of_what_was_imported(imported, folder, tmp_path):
    result = convert(f"export={imported}", f"out={tmp_path / 'out'}")
    assert result.status == 0, result.err
    assert f"diffusers' AutoencoderKL.from_pretrained('{tmp_path / 'out'}')" in result.out
    back, theirs = (AutoencoderKL.from_pretrained(place).eval() for place in (tmp_path / "out", folder / "vae"))
    assert back.config.scaling_factor == 0.18215
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in theirs.state_dict().items())
    origin = json.loads((tmp_path / "out" / "langevin.json").read_text())["origin"]
    assert origin["license"] == "creativeml-openrail-m"
    assert convert(f"export={imported}", f"out={tmp_path / 'own.safetensors'}").status == 0
    assert convert(f"import={tmp_path / 'out'}", f"out={tmp_path / 'again'}").status == 0
    assert json.loads((tmp_path / "again" / "origin.json").read_text()) == json.loads(
        (imported / "origin.json").read_text()
    )


@pytest.mark.slow
def test_export_of_a_trained_one(tmp_path):
    """With the EMA weights, and a scale of 1 for there is none; without norm_groups there would be 8 and 16."""
    tiny = ("autoencoder=vq_f4", "autoencoder.channels=32", "autoencoder.channel_multipliers=[1,2]")
    tiny += ("autoencoder.num_codes=20", "autoencoder.norm_groups=8", "data=digits", "batch_size=8")
    steps = ("trainer.accelerator=cpu", "trainer.max_steps=2", "ema.max_decay=0.5", f"output_dir={tmp_path}")
    result = call("train", "task=autoencoder", *tiny, *steps, "name=ae", "callbacks.samples.num_samples=4")
    assert result.status == 0, result.err
    result = convert(f"export={tmp_path / 'ae'}", f"out={tmp_path / 'out'}")
    assert result.status == 0, result.err
    theirs = VQModel.from_pretrained(tmp_path / "out").eval()
    assert (theirs.config.scaling_factor, theirs.config.sample_size, theirs.config.in_channels) == (1, 8, 1)
    weights_equal(tmp_path / "ae", theirs)


def test_a_checkpoint_of_compvis(tmp_path):
    """Which says nothing of its licence, nor does what lies beside it by chance."""
    torch.save({"state_dict": compvis_state(), "callbacks": {}}, tmp_path / "model.ckpt")
    (tmp_path / "LICENSE").write_text("of something else")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "origin.json").write_text('{"license": "of what was here before"}')
    result = convert(f"import={tmp_path / 'model.ckpt'}", f"out={tmp_path / 'run'}", "overwrite=true")
    assert result.status == 0, result.err
    assert json.loads((tmp_path / "run" / "origin.json").read_text()) == {"class": "CompVis AutoencoderKL"}
    load_trained(tmp_path / "run" / "checkpoints" / "last.ckpt")


def bad_places(folder, places):
    """Files and folders that are not what they should be."""
    config = json.loads((folder / "vae" / "config.json").read_text())
    other = {"_class_name": "AsymmetricAutoencoderKL"}
    for name, changes in {"other": other, "listed": {"_class_name": []}, "odd": {"sample_size": 30}}.items():
        shutil.copytree(folder / "vae", places / name)
        (places / name / "config.json").write_text(json.dumps(config | changes))
    shutil.copytree(folder / "vae", places / "weightless", ignore=shutil.ignore_patterns("*.safetensors"))
    state = compvis_state()
    del state["decoder.conv_out.bias"]
    torch.save({"state_dict": state}, places / "lacking.ckpt")
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, places / "unknown.ckpt")
    torch.save({"state_dict": 3}, places / "none.ckpt")
    torch.save(AutoencoderKL().state_dict(), places / "alone.bin")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("other", '_class_name is "AsymmetricAutoencoderKL"; allowed: '),
        ("listed", "_class_name is []; allowed: "),
        ("odd", "sample_size is 30; allowed: a multiple of 4, the number of levels being 3"),
        ("weightless", "holds no weights; allowed: diffusion_pytorch_model.safetensors or"),
        ("lacking.ckpt", "weights: do not fit the model of the config: 'decoder.last.bias' is missing"),
        ("unknown.ckpt", "weights of no network that is known; allowed: a folder of diffusers"),
        ("none.ckpt", "are no state dict; give a file that holds names and tensors only"),
        ("alone.bin", "are weights of diffusers; give the folder that holds their config.json too"),
    ],
)
def test_a_bad_place(folder, name, words, tmp_path):
    bad_places(folder, tmp_path)
    result = convert(f"import={tmp_path / name}", f"out={tmp_path / 'run'}")
    assert result.status == 1
    assert words in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sampler=ddim"], "sampler: is not used by an autoencoder; leave it out"),
        (["schedule=cosine"], "schedule: is not used by an autoencoder; leave it out"),
        (["autoencoder=kl_f4"], "autoencoder: is what is imported; leave it out, single fields may be set, such as"),
        (["autoencoder.kl_wieght=1"], "autoencoder.kl_wieght: no such option (did you mean kl_weight?)"),
        (["autoencoder.channels=32"], "weights: do not fit the model of the config: "),
        (["flags=--image_size 64"], "flags=--image_size 64: goes with OpenAI's weights, which"),
    ],
)
def test_a_mistake_in_an_import(folder, overrides, words, tmp_path):
    result = convert(f"import={folder / 'vae'}", f"out={tmp_path / 'run'}", *overrides)
    assert result.status == 1
    assert words in result.err
    assert not (tmp_path / "run").exists()


def test_a_mistake_in_an_export(imported, tmp_path):
    result = convert(f"export={imported}", f"out={tmp_path / 'out'}", "sampler=ddim")
    assert "sampler: is not used by an autoencoder; leave it out" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["channels", "0.18215"])
def test_diffusion_in_the_latents_of_what_was_imported(scaling, tmp_path, capsys):
    """Of images of another size than the config names; its licence goes with it, into an export too."""
    save(tmp_path / "vae", "kl", in_channels=1, out_channels=1, sample_size=64)
    (tmp_path / "vae" / "README.md").write_text(CARD)
    assert convert(f"import={tmp_path / 'vae'}", f"out={tmp_path / 'run'}").status == 0
    codec = ("codec=autoencoder", f"codec.run={tmp_path / 'run'}", f"codec.scaling={scaling}")
    tiny = (*TINY, "model=unet_small", "model.norm_groups=8", "data=digits", f"output_dir={tmp_path}", "name=latent")
    result = call("train", *codec, *tiny)
    assert result.status == 0, result.err
    result = call("sample", f"checkpoint={tmp_path / 'latent'}", "num_samples=2")
    assert result.status == 0, result.err
    with np.load(tmp_path / "latent" / "generated" / "samples.npz") as made:
        assert made["arr_0"].shape == (2, 8, 8, 1)
    origin = json.loads((tmp_path / "latent" / "origin.json").read_text())
    assert (origin["license"], origin["base_model"]) == ("creativeml-openrail-m", ["CompVis/sd"])
    assert origin == torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["langevin"]["origin"]
    (found,) = find_runs(tmp_path).values()
    print_runs(tmp_path, found, 0.0)
    assert capsys.readouterr().out.count("license=creativeml-openrail-m") == 2
    assert convert(f"export={tmp_path / 'latent'}", f"out={tmp_path / 'out'}").status == 0
    assert json.loads((tmp_path / "out" / "langevin.json").read_text())["origin"] == origin
