"""An autoencoder's run, and a run in its latents: trained, resumed, moved, evaluated; and what is refused."""

import shutil

import pytest
import torch
from helpers.commands import call
from training_helpers import Run, column, differing, train_by, trained

import langevin
from langevin.assembly.saved import load_model
from langevin.checkpoint import read_checkpoint
from langevin.errors import UserError
from langevin.networks.autoencoders.kl import KLAutoencoder

COMMON = (
    "data=digits",
    "batch_size=16",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=3",
    "callbacks=[checkpoint,samples]",
    "callbacks.samples.every_n_steps=3",
    "callbacks.samples.num_samples=4",
)
AUTOENCODER = (
    *COMMON,
    "task=autoencoder",
    "autoencoder.channels=8",
    "autoencoder.norm_groups=4",
    "discriminator=patch",
    "discriminator.layers=1",
    "discriminator.channels=8",
    "objective.adversarial_start=3",
    "optimizer.lr=1e-3",
    "trainer.max_steps=6",
)
PLAIN = (
    *COMMON,
    "codec=autoencoder",
    "model=unet_small",
    "model.channels=32",
    "model.channel_multipliers=[1]",
    "conditions=[class_label]",
    "sampler.steps=2",
    "trainer.max_steps=4",
)
LATENT = (*PLAIN, "data.flip=true")


def train(folder, *overrides, name, status=0):
    last = {argument.partition("=")[0]: argument for argument in (*overrides, f"output_dir={folder}", f"name={name}")}
    run = Run(*call("train", *last.values()), folder / name)
    assert run.status == status, run.err
    return run


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    return train(tmp_path_factory.mktemp("autoencoder"), *AUTOENCODER, name="ae")


@pytest.fixture(scope="module")
def latent(tmp_path_factory, autoencoder):
    return train(tmp_path_factory.mktemp("latent"), *LATENT, f"codec.run={autoencoder.directory}", name="ldm")


def test_a_run_of_an_autoencoder(autoencoder):
    assert f"next: langevin train codec=autoencoder codec.run={autoencoder.directory}" in autoencoder.out
    rows = autoencoder.rows
    assert set(column(rows, "train/adversarial_weight")) == {4, 5, 6}, "from its start on"
    assert set(column(rows, "train/grad_norm/discriminator")) == {1, 2, 3, 4, 5, 6}
    assert set(column(rows, "val/kl")) == {3, 6}
    assert [path.name for path in sorted((autoencoder.directory / "samples").iterdir())] == [
        "samples_00000003.png",
        "samples_00000006.png",
    ]
    groups = read_checkpoint(autoencoder.last)["optimizer_states"][0]["param_groups"]
    assert [(group["role"], group["weight_decay"]) for group in groups] == [("model", 0.0), ("discriminator", 0.0)]


def test_it_resumes_to_the_bit(tmp_path, autoencoder):
    train(tmp_path, *AUTOENCODER, "trainer.max_steps=4", name="ae")
    resumed = train(tmp_path, *AUTOENCODER, name="ae")
    assert "from step 4 to 6" in resumed.out
    assert differing(trained(resumed), trained(autoencoder)) == []


def test_a_run_in_latents_holds_its_decoder(tmp_path, autoencoder, latent):
    """It samples without the autoencoder's run; its latents are of mean 0 and deviation 1; its config says whose."""
    state = read_checkpoint(latent.last)["state_dict"]
    own = read_checkpoint(autoencoder.last)["state_dict"]
    names = [name for name in own if name.startswith("ema.network.")]
    assert all(torch.equal(state[name.replace("ema.network.", "codec.network.")], own[name]) for name in names)
    assert float((state["codec.scale"] - 1).abs().min()) > 0
    elsewhere = shutil.copytree(latent.directory, tmp_path / "alone")
    model = load_model(elsewhere / "checkpoints" / "last.ckpt")
    assert (model.spec.shape, model.diffused.shape) == ((1, 8, 8), (2, 4, 4))
    samples = langevin.load(elsewhere).sample(3, steps=2).samples
    assert samples.shape == (3, 8, 8, 1)
    assert "encoding 3,000 images once (both mirror images)" in latent.out


@pytest.mark.slow
def test_a_moved_autoencoder_resumes_and_another_one_does_not(tmp_path, autoencoder, latent):
    run = shutil.copytree(latent.directory, tmp_path / "ldm")
    moved = shutil.copytree(autoencoder.directory, tmp_path / "moved")
    options = (*LATENT, "trainer.max_steps=5")
    assert "from step 4 to 5" in train(tmp_path, *options, f"codec.run={moved}", name="ldm").out
    other = train(tmp_path, *AUTOENCODER, "trainer.max_steps=7", name="moved")
    refused = train(tmp_path, *options, f"codec.run={other.directory}", name=run.name, status=1)
    assert "that run exists with another config" in refused.err
    assert "codec.weights: " in refused.err


def test_latents_that_do_not_vary_are_refused_before_training(tmp_path, autoencoder, monkeypatch):
    monkeypatch.setattr(KLAutoencoder, "moments", lambda self, x: torch.zeros(len(x), 4, 4, 4) - 30)
    run = train(
        tmp_path,
        *PLAIN,
        f"codec.run={autoencoder.directory}",
        "loader.cache_dir=" + str(tmp_path),
        name="run",
        status=1,
    )
    assert "codec.scaling: is channels, but the latents' standard deviations are" in run.err
    assert not run.directory.exists()


def test_a_diverged_batch_of_latents_is_recorded(tmp_path, autoencoder):
    options = (*PLAIN, f"codec.run={autoencoder.directory}", "optimizer.lr=1e30")
    run = train(tmp_path, *options, "callbacks=[checkpoint,samples,divergence]", name="run", status=1)
    assert "training diverged at step 2" in run.err
    (file,) = (run.directory / "diverged").glob("*.pt")
    assert torch.load(file)["parts"][0]["moments"].shape == (16, 4, 4, 4)


@pytest.mark.slow
def test_a_guide_in_other_latents_is_refused(tmp_path, autoencoder, latent):
    guided = (f"checkpoint={latent.directory}", "guidance=autoguidance", "num_samples=1", "sampler.steps=1")
    other = train(tmp_path, *LATENT, f"codec.run={autoencoder.directory}", "codec.scaling=global", name="other")
    status, _, err = call("sample", *guided, f"guidance.weaker={other.directory}", f"out={tmp_path / 'out'}")
    assert status == 1
    assert "a model of latents of another codec; allowed: one of latents of the model's codec.run" in err
    assert call("sample", *guided, f"guidance.weaker={latent.directory}", f"out={tmp_path / 'out'}")[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text, state: (text.replace("blocks_per_level: 1", "blocks_per_level: 100000"), state), "has more than"),
        (
            lambda text, state: (text, {**state, "codec.network.after.bias": torch.zeros(1).expand(2**40)}),
            "claim to be larger than the whole file",
        ),
    ],
    ids=["deep", "large"],
)
def test_a_strangers_codec_is_not_built_before_it_is_known_to_fit(tmp_path, latent, change, message):
    stored = read_checkpoint(latent.last)
    record = dict(stored["langevin"])
    config, state = change(record["config"], stored["state_dict"])
    assert config != record["config"] or len(state) == len(stored["state_dict"])
    torch.save({**stored, "langevin": {**record, "config": config}, "state_dict": state}, tmp_path / "stranger.ckpt")
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "stranger.ckpt")


@pytest.mark.slow
def test_resumed_in_latents_to_the_bit(tmp_path, autoencoder, latent):
    options = (*LATENT, f"codec.run={autoencoder.directory}")
    train(tmp_path, *options, "trainer.max_steps=2", name="ldm")
    resumed = train(tmp_path, *options, name="ldm")
    assert differing(trained(resumed), trained(latent)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("codec.run=nowhere",), "codec.run: is nowhere, which does not exist; allowed: a run's folder"),
        (("codec.run={ldm}",), "allowed: an autoencoder's run (task=autoencoder); this is a denoiser's"),
        (("codec.run={ae}", "thresholding=static"), "thresholding: "),
        (("codec.run={ae}", "likelihoods=[discrete_vlb]"), "likelihoods.discrete_vlb: "),
        (("codec.run={ae}", "likelihoods=[probability_flow]"), "likelihoods.probability_flow: "),
        (("codec.run={ae}", "data=image_folder", "data.path={images}"), "these have 3"),
        (
            ("codec.run={ae}", "data=toy"),
            "codec: does not go with this data: autoencoder needs the side",
        ),
        (("codec.run={ae}", "autoencoder=kl_f4"), "autoencoder: is another one than that of codec.run"),
        (
            ("codec.run={ae}", "task=autoencoder"),
            "codec: is made of an autoencoder, which is what is trained; take codec=identity",
        ),
        (
            ("codec.run={ae}", "conditions=[low_res]", "conditions.low_res.size=4"),
            "conditions.low_res: is computed of the images, of which only latents are kept",
        ),
        (
            ("codec.run={ae}", "conditions=[augmentation]"),
            "conditions.augmentation: transforms images, of which only latents are kept",
        ),
        (
            (
                "codec.run={ae}",
                "data=image_folder",
                "data.path={images}",
                "conditions=[hint]",
                "conditions.hint.kind=pairs",
                "data.channels=1",
            ),
            "conditions.hint: reads hints of the size of the images, and what is diffused is their latents",
        ),
        ((), "codec.run: must be given"),
        (("codec.run=null", "autoencoder=kl_tiny"), "codec.run: is null; allowed: the run of an autoencoder"),
        (("codec=identity", "perceptual=none", "autoencoder=kl_f4"), "autoencoder: is not used by a denoiser"),
    ],
)
def test_what_is_refused_before_any_data_is_read(tmp_path, autoencoder, latent, options, message):
    places = {"ae": autoencoder.directory, "ldm": latent.directory, "images": tmp_path}
    given = (*PLAIN, *(option.format(**places) for option in options))
    if any(option == "task=autoencoder" for option in options):
        given = (*COMMON, "codec=autoencoder", *(option.format(**places) for option in options))
    run = train(tmp_path, *given, name="refused", status=1)
    assert message in run.err, run.err
    assert "Traceback" not in run.err
    assert not run.directory.exists()


def test_what_an_autoencoder_refuses(tmp_path):
    refused = {
        "autoencoder.channel_multipliers=[1,1,1,1,1]": "5 levels, which need images of 16 pixels a side or more, and",
        "callbacks=[trajectory]": "callbacks.trajectory: makes samples, which an autoencoder cannot",
        "objective=simple": "objective: does not train an autoencoder; take reconstruction",
        "trainer.strategy=fsdp": "trainer.strategy: is fsdp; allowed with an autoencoder: auto, ddp",
    }
    for option, message in refused.items():
        run = train(tmp_path, "task=autoencoder", "data=digits", option, name="refused", status=1)
        assert message in run.err, run.err
        assert not run.directory.exists()


@pytest.mark.slow
@pytest.mark.parametrize("options", [AUTOENCODER, LATENT], ids=["autoencoder", "latent"])
def test_the_curves_are_the_same_for_one_and_two_processes(tmp_path, autoencoder, options):
    """The adaptive weight too, which is of the gradients of all processes; and the latents that are drawn."""
    runs = []
    if options is LATENT:
        options = (*LATENT, f"codec.run={autoencoder.directory}")
    for processes in (1, 2):
        given = (*options, "trainer.max_steps=12", f"loader.cache_dir={tmp_path / str(processes)}")
        runs.append(train_by(processes, tmp_path, *given))
    names = {"train/loss": 12, "val/loss": 4}
    if "task=autoencoder" in options:
        names |= {"train/adversarial_weight": 9, "train/grad_norm/discriminator": 12}
    for name, number in names.items():
        first, second = (column(run.rows, name) for run in runs)
        assert len(first) == number
        assert second == pytest.approx(first, rel=1e-4), name
