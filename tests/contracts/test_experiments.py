"""Every experiment runs."""

import csv

import pytest
from helpers.commands import call, composed
from omegaconf import OmegaConf

from contracts.options import with_files
from langevin.config.validate import CONF, options

# Metrics that need no downloaded weights.
OFFLINE = ("class_accuracy", "psnr")
# Networks of images larger than digits, which take a second or more even so, and what other quick tests train: the
# presets for debugging a classifier and all of "digits". The tests of their configs stay quick.
LARGE_OR_ELSEWHERE = {
    "cars_small",
    "cars_text",
    "cars_tutorial",
    "cars_upscale",
    "cifar10_autoencoder",
    "cifar10_classifier",
    "cifar10_latent",
    "cifar10_minutes",
    "cifar10_small",
    "digits",
    "digits_ddpm",
}
SMALL = {
    "autoencoder.channels": 8,
    "autoencoder.norm_groups": 4,
    "model.channels": 32,
    "model.widths": "[8,8,8,8,8]",
    "batch_size": 8,
    "sampler.steps": 2,
    "trainer.accelerator": "cpu",
    "trainer.devices": 1,
    "trainer.num_nodes": 1,
    "trainer.strategy": "auto",
    "trainer.max_steps": 2,
    "trainer.accumulate_grad_batches": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.limit_val_batches": 1,
    "lr_schedule.steps": 1,
    "callbacks.samples.num_samples": 4,
    "callbacks.trajectory.num_samples": 2,
    "evaluation.num_samples": 4,
    "loggers.wandb.mode": "disabled",
}


def there(cfg, path):
    """Whether a config has a field, be it null."""
    return OmegaConf.select(cfg, path, default="absent") != "absent"


def shrunk(name):
    """What makes two quick steps of an experiment on digits, and the metrics it then has."""
    cfg, choices = composed("train", f"experiment={name}")
    overrides = [f"{path}={value}" for path, value in SMALL.items() if there(cfg, path)]
    if choices["data"] not in ("digits", "toy"):
        # What the experiment sets of its own data would be left over.
        foreign = (
            composed("train", f"experiment={name}", "data=digits")[0].data.keys() - composed("train")[0].data.keys()
        )
        overrides += ["data=digits", f"data.image_size={cfg.data.image_size}", *(f"~data.{key}" for key in foreign)]
    if choices["codec"] == "autoencoder":
        overrides.append(with_files("codec.run={autoencoder}"))
    metrics = [metric for metric in cfg.get("metrics") or {} if metric in OFFLINE]
    return [*overrides, f"metrics=[{','.join(metrics)}]"], metrics


@pytest.mark.parametrize("name", options("experiment"))
def test_what_it_sets_holds(name):
    """Of the command's own options too, and the command line goes before it."""
    own = OmegaConf.load(CONF / "experiment" / f"{name}.yaml")
    del own["defaults"]
    cfg = composed("train", f"experiment={name}")[0]
    assert OmegaConf.merge(cfg, own) == cfg
    assert composed("train", f"experiment={name}", "batch_size=24")[0].batch_size == 24


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in LARGE_OR_ELSEWHERE else ())
        for name in options("experiment")
    ],
)
def test_runs(name, tmp_path):
    overrides, metrics = shrunk(name)
    result = call("train", f"experiment={name}", *overrides, f"output_dir={tmp_path}", "name=run")
    assert result.status == 0, result.err
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["step"] == "2"
    assert 0 < float(rows[-1]["train/loss"]) < float("inf")
    assert all(f"eval/{metric}" in rows[-1] for metric in metrics)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
