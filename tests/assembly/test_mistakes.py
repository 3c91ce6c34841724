"""Every kind of mistake in a training command: its path, and the message."""

import textwrap

import pytest
from helpers.commands import composed

from langevin.assembly.check import check_model, mistakes_in
from langevin.assembly.run import dry_build
from langevin.config.validate import ConfigError

# The overrides, and the path and words of the one mistake they make.
UNKNOWN = [
    (
        ["foo=1"],
        "foo",
        ["no such option", "allowed: name, output_dir, resume, accept_data, seed, batch_size, ", "optimizer"],
    ),
    (["batchsize=1"], "batchsize", ["no such option (did you mean batch_size?)"]),
    (["schedules.num_steps=10"], "schedules", ["no such option (did you mean schedule?)"]),
    (
        ["schedule.num_step=10"],
        "schedule.num_step",
        ["did you mean num_steps?", "allowed: num_steps, beta_start, beta_end, rescale"],
    ),
    (["model.block=convnext"], "model.block", ["no such option", "allowed: channels, channel_multipliers, "]),
    (["model.in_channels=3"], "model.in_channels", ["is decided by the rest of the config; leave it out"]),
    (["ema.network={_target_:torch.nn.Identity}"], "ema.network", ["is decided by the rest of the config"]),
    (["trainer.max_step=5"], "trainer.max_step", ["did you mean max_steps?"]),
    (["callbacks.sample.seed=3"], "callbacks.sample", ["did you mean samples?"]),
    (
        ["callbacks.samples.number=3"],
        "callbacks.samples.number",
        ["allowed: every_n_steps, num_samples, "],
    ),
    (["callbacks.trajectory.seed=3"], "callbacks.trajectory", ["choose it first: callbacks=[", "trajectory]"]),
    (["metrics.fid.min_samples=9"], "metrics.fid", ["choose it first: metrics=[fid]"]),
    (["conditions.class_label.dropout=0.2"], "conditions.class_label", ["choose it first: conditions=[class_label]"]),
    (["loggers=[wandb]", "loggers.wandb.projekt=a"], "loggers.wandb.projekt", ["did you mean project?"]),
    # A key of the schedule that another choice has left behind.
    (["schedule=linear", "schedule.beta_max=0.9"], "schedule.beta_max", ["no such option", "beta_start"]),
]
TYPES = [
    (["schedule.num_steps=ten"], "schedule.num_steps", ["is 'ten'; allowed: a whole number"]),
    (["schedule.num_steps=10.5"], "schedule.num_steps", ["is 10.5; allowed: a whole number"]),
    (["batch_size=many"], "batch_size", ["is 'many'; allowed: a whole number"]),
    (["seed=true"], "seed", ["is True; allowed: a whole number"]),
    (["seed=null"], "seed", ["is null; allowed: a whole number"]),
    (["sampler.eta=small"], "sampler.eta", ["is 'small'; allowed: a number"]),
    (["ema.max_decay=nan"], "ema.max_decay", ["is nan; allowed: a number"]),
    (["optimizer.weight_decay='0.1'"], "optimizer.weight_decay", ["is '0.1'; allowed: a number"]),
    (["data.flip=1"], "data.flip", ["is 1; allowed: true or false"]),
    (["compile=yes please"], "compile", ["is 'yes please'; allowed: true or false"]),
    (["resume=yes_please"], "resume", ["is 'yes_please'; allowed: true or false"]),
    (["output_dir=3"], "output_dir", ["is 3; allowed: a text"]),
    (["name=3"], "name", ["is 3; allowed: a text or null"]),
    (["model.channel_multipliers=2"], "model.channel_multipliers", ["is 2; allowed: a list, each item a whole number"]),
    (["model.channel_multipliers=[1,b]"], "model.channel_multipliers", ["is [1, 'b']; allowed: a list"]),
    (["model.dropout=null"], "model.dropout", ["is null; allowed: a number"]),
    (["trainer.precision=16"], "trainer.precision", ["is 16; allowed: one of 32-true, bf16-mixed, "]),
    (["callbacks.checkpoint.mode=best"], "callbacks.checkpoint.mode", ["is 'best'; allowed: one of min, max"]),
    (["trainer.gradient_clip_val=off"], "trainer.gradient_clip_val", ["allowed: a number, above 0 or null"]),
    (["callbacks.samples=true"], "callbacks.samples", ["is True, but a component is chosen by name"]),
]
MISSING = [
    (["seed=???"], "seed", ["must be given; allowed: a whole number"]),
    (["optimizer.lr=???"], "optimizer.lr", ["must be given; allowed: a number"]),
    (
        ["data=null"],
        "data",
        [
            "must be chosen: data=NAME with one of captioned, cifar10, digits, image_folder, parquet, stanford_cars, "
            "tar_shards, toy"
        ],
    ),
    (["model=null"], "model", ["must be chosen", "unet_small"]),
    (["~optimizer"], "optimizer", ["must be chosen: optimizer=NAME with one of adam, adamw"]),
    (["~model.channels"], "model.channels", ["must be given"]),
    (["seed=${nowhere}"], "seed", ["Interpolation key 'nowhere' not found"]),
    *(
        (
            [*chosen, f"{option}=${{nothing}}"],
            option,
            ["is ${nothing}, which cannot be resolved", "'nothing' not found"],
        )
        for chosen, option in (
            (["auxiliaries=[alignment]"], "auxiliaries.alignment.run"),
            (["codec=autoencoder"], "codec.run"),
            (["codec=autoencoder", "codec.run=nowhere"], "codec.weights"),
            (["text=t5", "conditions=[text]", "captions=templates"], "text.path"),
            (["adapter=lora"], "init.checkpoint"),
            ([], "codec._target_"),
            ([], "optimized_metric"),
            (["task=autoencoder"], "trainer.strategy"),
            (
                ["auxiliaries=[alignment]", "auxiliaries.alignment.run=nowhere", "codec=autoencoder", "codec.run=x"],
                "trust",
            ),
        )
    ),
    (
        ["conditions=[text]", "captions=templates", "text=clip", "name=/nowhere", "text.path=${name}"],
        "text.path",
        ["is /nowhere, which is no folder"],
    ),
    (["schedule.num_steps=${oc.env:NO_SUCH_VARIABLE}"], "schedule.num_steps", ["'NO_SUCH_VARIABLE' not found"]),
]
RANGES = [
    (["sampler.steps=0"], "sampler.steps", ["is 0; allowed: a whole number, at least 1 or null"]),
    (["sampler.eta=2"], "sampler.eta", ["is 2; allowed: a number, at least 0, at most 1"]),
    (["schedule.num_steps=0"], "schedule.num_steps", ["is 0; allowed: a whole number, at least 1"]),
    (["schedule.beta_end=1e-5"], "schedule.beta_end", ["is 1e-05; allowed: at least beta_start (0.0001)"]),
    (["schedule.num_steps=10", "sampler.steps=5"], "schedule", ["betas must lie strictly between 0 and 1"]),
    (["ema.max_decay=1"], "ema.max_decay", ["is 1; allowed: 0 (no EMA) up to, not including, 1"]),
    (["ema=images", "ema.half_life=0"], "ema.half_life", ["is 0; allowed: above 0 images"]),
    (
        ["optimizer.lr=-1"],
        "optimizer.lr",
        ["is -1, ", "Invalid learning rate: -1", "allowed: such as 0.001, the default"],
    ),
    (
        ["optimizer.betas=[0.9,1.5]"],
        "optimizer.betas",
        ["is [0.9, 1.5], ", "allowed: such as [0.9, 0.999], the default"],
    ),
    (["trainer.limit_val_batches=7.5"], "trainer.limit_val_batches", ["is 7.5, ", "allowed: such as 1.0"]),
    (["trainer.profiler=foo"], "trainer.profiler", ["is 'foo'; allowed: one of simple, advanced, pytorch or null"]),
    (["lr_schedule.steps=-1"], "lr_schedule.steps", ["is -1; allowed: at least 0"]),
    (["trainer.max_steps=0"], "trainer.max_steps", ["is 0; allowed: a whole number, at least 1"]),
    (
        ["trainer.accumulate_grad_batches=0"],
        "trainer.accumulate_grad_batches",
        ["is 0; allowed: a whole number, at least 1"],
    ),
    (["trainer.gradient_clip_val=0"], "trainer.gradient_clip_val", ["is 0; allowed: a number, above 0"]),
    (["trainer.accelerator=abacus"], "trainer.accelerator", ["abacus", "cpu"]),
    (["trainer.strategy=divide"], "trainer.strategy", ["divide", "ddp"]),
    (["trainer.devices=0"], "trainer.devices", ["devices=0"]),
    (["callbacks.samples.num_samples=0"], "callbacks.samples.num_samples", ["is 0", "at least 1"]),
    (
        ["callbacks.samples.every_n_steps=0"],
        "callbacks.samples.every_n_steps",
        ["is 0; allowed: a whole number, at least 1"],
    ),
    (
        ["callbacks.progress.every_n_steps=0"],
        "callbacks.progress.every_n_steps",
        ["is 0; allowed: a whole number, at least 1"],
    ),
    (["callbacks.checkpoint.every_minutes=0"], "callbacks.checkpoint.every_minutes", ["is 0", "above 0"]),
    (["callbacks.checkpoint.monitor=loss"], "callbacks.checkpoint.monitor", ["is loss; allowed: a name that begins"]),
    (["metrics=[class_accuracy]", "evaluation.batch_size=0"], "evaluation.batch_size", ["is 0", "at least 1"]),
    (["metrics=[fid]", "metrics.fid.min_samples=1"], "metrics.fid.min_samples", ["is 1", "at least 2"]),
    (["metrics=[inception_score]", "metrics.inception_score.splits=0"], "metrics.inception_score.splits", ["is 0"]),
    (["loader.num_workers=-1"], "loader.num_workers", ["is -1", "at least 0"]),
    (["batch_size=0"], "batch_size", ["is 0", "at least 1"]),
    (["seed=-1"], "seed", ["is -1", "at least 0"]),
    (["data=image_folder", "data.channels=2"], "data.channels", ["is 2", "1 (grey) or 3 (RGB)"]),
    (["data=image_folder", "data.resize=zoom"], "data.resize", ["is 'zoom'", "one of crop, pad, stretch"]),
    (["data=image_folder", "data.background=[0,0]"], "data.background", ["is [0, 0]; allowed: three whole numbers"]),
    (["data=image_folder", "data.background=[0,0,256]"], "data.background", ["is [0, 0, 256]", "at most 255"]),
    (["data=cifar10", "data.background=white"], "data.background", ["is 'white'; allowed: a list"]),
    (["data=stanford_cars", "data.skip_broken=1"], "data.skip_broken", ["is 1; allowed: true or false"]),
    (["model.channels=33"], "model.channels", ["is 33; allowed: a positive multiple of 32"]),
    (["model.dropout=1"], "model.dropout", ["is 1; allowed: a number, at least 0, below 1"]),
    (["model.blocks_per_level=0"], "model.blocks_per_level", ["is 0; allowed: a whole number, at least 1"]),
    (["model.channel_multipliers=[]"], "model.channel_multipliers", ["one positive integer for each level"]),
    (["model.head_channels=48"], "model.head_channels", ["is 48; allowed: a divisor of each of the widths"]),
    (
        ["conditions=[class_label]", "conditions.class_label.dropout=2"],
        "conditions.class_label.dropout",
        ["is 2; allowed: a number, at least 0, at most 1"],
    ),
    (
        ["conditions=[class_label]", "guidance=classifier_free", "guidance.scale=-1"],
        "guidance.scale",
        ["is -1; allowed: a number, at least 0"],
    ),
]
CONTRADICTIONS = [
    (["data=toy", "model=mlp", "captions=templates"], "captions", ["describes images (C, H, W)", "of shape (2,)"]),
    (["data=captioned", "captions=templates"], "captions", ["this data has its own; leave it out"]),
    (["captions=templates", "captions.held_out=[[]]"], "captions.held_out", ["has an empty group"]),
    (
        ["sampler.steps=1001"],
        "sampler.steps",
        ["is 1001; allowed: at least 1 and at most the schedule's 1000"],
    ),
    # A part's own words, with its class in front.
    (
        ["rescalings=[zero_terminal_snr]"],
        "parameterization",
        ["Eps cannot recover the image at the schedule's last time", "; take x", "v"],
    ),
    (
        ["schedule=flow", "parameterization=posterior_mean"],
        "parameterization",
        [
            "PosteriorMean predicts the mean of a discrete step, but the schedule is continuous",
            "set schedule.num_steps",
        ],
    ),
    (
        ["schedule=flow", "parameterization=edm"],
        "parameterization",
        ["EDMParameterization gives the network log(sigma / alpha), which is infinite", "take x, v or flow"],
    ),
    (
        ["schedule=vp", "objective=vlb"],
        "objective",
        [
            "VLBObjective is a sum over discrete steps, but the schedule is continuous",
            "set schedule.num_steps, or take ",
        ],
    ),
    (
        ["objective=hybrid", "variance=fixed_small"],
        "objective",
        [
            "Hybrid trains a learned variance, and the variance is fixed",
            "take variance=learned_range, or objective=simple",
        ],
    ),
    (
        ["variance=learned_range"],
        "objective",
        [
            "Simple does not train a learned variance",
            "take objective=hybrid or objective=vlb, or a variance that is fixed",
        ],
    ),
    (
        ["schedule=vp", "time_sampler=loss_aware"],
        "time_sampler",
        [
            "LossAware keeps a history for each discrete time, but the schedule is continuous",
            "take another time_sampler",
        ],
    ),
    (
        ["formulation=edm", "rescalings=[zero_terminal_snr]"],
        "rescalings.zero_terminal_snr",
        ["needs a schedule that preserves variance, alpha^2 + sigma^2 = 1"],
    ),
    (
        ["schedule=vp", "timestep_spacing=leading"],
        "timestep_spacing",
        ["needs a schedule with discrete steps; take timestep_spacing=trailing"],
    ),
    (["schedule=vp", "sampler=ancestral"], "sampler.steps", ["is null; a schedule in continuous time needs a number"]),
    (["guidance=classifier_free"], "guidance", ["needs a class-conditional model", "conditions=[class_label]"]),
    (
        ["guidance=classifier_free", "conditions=[class_label]", "conditions.class_label.dropout=0"],
        "guidance",
        ["for which it was not trained; train with dropout above 0 in each of conditions"],
    ),
    (["guidance=classifier"], "guidance.classifier", ["must be given"]),
    (["guidance=classifier", "guidance.classifier=nowhere"], "guidance.classifier", ["nowhere", "does not exist"]),
    (["guidance=autoguidance", "guidance.weaker=nowhere"], "guidance.weaker", ["nowhere", "does not exist"]),
    (
        ["model.cross_attention=true"],
        "model.cross_attention",
        ["no condition to attend to; add conditions=[class_label]"],
    ),
    (["conditions=[text]"], "conditions.text", ["needs a text encoder, such as text=learned, and here is none"]),
    (["text=bag"], "text", ["is read by no condition; add conditions=[text]"]),
    (["captions=templates"], "captions", ["is read by no condition; add conditions=[text]"]),
    (["conditions=[text]", "text=bag"], "conditions.text", ["needs captions", "data=captioned, or captions=templates"]),
    (
        ["conditions=[text]", "text=bag", "captions=templates", "conditions.text.pooled=false"],
        "conditions.text.pooled",
        ["is false; allowed: true, since this encoder gives no tokens"],
    ),
    (
        ["conditions=[text]", "text=learned", "captions=templates", "text.heads=3"],
        "text.heads",
        ["is 3; allowed: a divisor of the width, 128"],
    ),
    (["task=classifier", "text=learned"], "text", ["is not used by a classifier; leave it out"]),
    (["auxiliaries=[alignment]"], "auxiliaries.alignment.run", ["must be given; allowed: a text"]),
    (
        ["auxiliaries=[alignment]", "auxiliaries.alignment.run=nowhere"],
        "auxiliaries.alignment.run",
        ["is nowhere, which does not exist; allowed: a run's folder or a .ckpt file"],
    ),
    (
        ["task=classifier", "auxiliaries=[alignment]", "auxiliaries.alignment.run=nowhere"],
        "auxiliaries",
        ["is not used by a classifier; leave it out"],
    ),
    (["classifier=half_unet"], "classifier", ["is not used by a denoiser", "add task=classifier"]),
    (["objective=cross_entropy"], "objective", ["does not train a denoiser; take another, or add task=classifier"]),
    (["task=classifier", "weighting=unit_eps"], "weighting", ["is not used by a classifier"]),
    (["task=classifier", "objective=l1"], "objective", ["does not train a classifier; take cross_entropy"]),
    (["task=classifier", "sampler=ddim"], "sampler", ["is not used by a classifier; leave it out"]),
    (["task=classifier", "callbacks=default"], "callbacks.samples", ["makes samples, which a classifier cannot"]),
    (
        ["task=classifier", "classifier.channels=40"],
        "classifier.channels",
        ["is 40; allowed: a positive multiple of 32"],
    ),
    (
        ["data.image_size=10"],
        "model.channel_multipliers",
        ["has 3 levels, and image_size=10 is not divisible by 4"],
    ),
    (
        ["batch_size=10", "trainer.devices=2", "trainer.accumulate_grad_batches=2", "trainer.strategy=ddp"],
        "batch_size",
        ["is 10; allowed: a multiple of 2 (trainer.devices) * 2 (trainer.accumulate_grad_batches)"],
    ),
    (["batch_size=9", "trainer.num_nodes=2"], "batch_size", ["is 9; allowed: a multiple of 2 (trainer.num_nodes)"]),
    (["batch_size=9", "trainer.devices='2'"], "batch_size", ["is 9; allowed: a multiple of 2 (trainer.devices)"]),
]
TARGETS = [
    (["schedule._target_=Linear"], "schedule._target_", ["'Linear' is not the full path of a class"]),
    (
        ["sampler._target_=langevin.samplers.ddim.DDIMM"],
        "sampler._target_",
        ["module 'langevin.samplers.ddim' has no class or function 'DDIMM'"],
    ),
    (["ema._target_=langevin.emas.StepEMA"], "ema._target_", ["module 'langevin.emas' does not exist"]),
]


def mistakes(*overrides):
    return find(composed("train", *overrides)[0])


def find(cfg):
    found = mistakes_in(cfg)
    found = found or dry_build(cfg)
    assert len({path for path, _ in found}) == len(found)
    return dict(found)


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        pytest.param(*case, id=" ".join(case[0]))
        for case in UNKNOWN + TYPES + MISSING + RANGES + CONTRADICTIONS + TARGETS
    ],
)
def test_a_mistake(overrides, path, words):
    found = mistakes(*overrides)
    assert list(found) == [path]
    for word in words:
        assert word in found[path]
    assert len(textwrap.wrap(f"{path}: {found[path]}", 80)) <= 8


@pytest.mark.parametrize("constructor", ["    def __init__(self, num_steps: int = 3): ...\n", ""])
@pytest.mark.parametrize("group", ["schedule", "model", "ema"])
def test_a_class_whose_module_cannot_be_imported(group, constructor, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"failing_{group}_{len(constructor)}"
    (tmp_path / f"{name}.py").write_text(f"import no_such_dependency\nclass Part:\n    x = 1\n{constructor}")
    cfg, _ = composed("train")
    cfg[group] = {"_target_": f"{name}.Part"}
    found = find(cfg)
    assert list(found) == [f"{group}._target_"]
    assert f"importing '{name}" in found[f"{group}._target_"]
    assert "ModuleNotFoundError: No module named 'no_such_dependency'" in found[f"{group}._target_"]


def test_a_batch_that_can_be_shared_out_is_fine():
    assert (
        mistakes("batch_size=8", "trainer.devices=2", "trainer.num_nodes=2", "trainer.accumulate_grad_batches=2") == {}
    )
    assert mistakes("batch_size=9", "trainer.devices=auto") == {}


def test_a_source_of_one_size_needs_no_option_for_it():
    assert mistakes("~data.image_size") == {}


class Foreign:
    """A constructor of another library, whose words name the wrong field, or none."""

    def __init__(self, params, lr: float = 0.1, low: float = 1.0, high: float = 2.0, name: str = "low"):
        if lr < 0:
            raise ValueError(f"bad value for {name}")
        if not low < high:
            raise ValueError(f"{low} is not below {high}")


def test_what_another_library_refuses_is_found_by_trying(monkeypatch):
    """Not by its words: here they name another field than is at fault."""
    cfg, _ = composed("train", "data=digits")
    target = f"{__name__}.Foreign"
    cfg.optimizer = {"_target_": target, "lr": -3.0, "low": 1.5, "high": 2.0, "name": "low"}
    ((path, text),) = find(cfg).items()
    assert (path, text) == (
        "optimizer.lr",
        "is -3.0, which is refused (bad value for low); allowed: such as 0.1, the default",
    )
    cfg.optimizer = {"_target_": target, "lr": -3.0, "low": 5.0, "high": 2.0, "name": "low"}
    assert list(find(cfg)) == ["optimizer.lr", "optimizer.low"], "one after the other"
    cfg.optimizer = {"_target_": target, "lr": 0.1, "low": 5.0, "high": 4.0, "name": "low"}
    assert list(find(cfg)) == ["optimizer.low"], "for with the default of high it is refused still"
    cfg.optimizer = {"_target_": target, "lr": 0.1, "low": 1.5, "high": 1.2, "name": "low"}
    ((path, text),) = find(cfg).items()
    assert path == "optimizer", "either could be meant"
    assert "1.5 is not below 1.2; it is about one of these" in text
    assert "optimizer.low=1.5, optimizer.high=1.2" in text


def test_two_values_of_one_constructor_are_both_reported():
    """It stops at the first by itself."""
    found = mistakes("schedule=sigmoid_log_snr", "schedule.end=-4", "schedule.log_snr_max=-20")
    assert set(found) == {"schedule.end", "schedule.log_snr_max"}
    found = mistakes("sampler.steps=0", "sampler.eta=2", "trainer.max_steps=0", "trainer.gradient_clip_val=-1")
    assert set(found) == {"sampler.steps", "sampler.eta", "trainer.max_steps", "trainer.gradient_clip_val"}


def test_a_network_of_ones_own_is_not_built_by_the_check(tmp_path, monkeypatch):
    """It may read its own weights, which the check's have no values, or want other numbers of channels."""
    source = (
        "import torch\n\n\nclass Net(torch.nn.Module):\n"
        "    def __init__(self, in_channels, out_channels, image_size, condition):\n"
        "        super().__init__()\n"
        "        if in_channels != 1:\n            raise ValueError('grey images only')\n"
        "        self.rates = [float(rate) for rate in torch.linspace(0, 1, 3)]\n"
    )
    (tmp_path / "net_of_ones_own.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    cfg, _ = composed("train")
    cfg.model = {"_target_": "net_of_ones_own.Net"}
    assert mistakes_in(cfg) == []


def test_a_broken_task_of_a_stored_model_is_reported_once():
    cfg, _ = composed("train")
    cfg.task._target_ = "langevin.assembly.tasks.NoTask"
    with pytest.raises(ConfigError) as error:
        check_model(cfg)
    assert [path for path, _ in error.value.mistakes] == ["task._target_"]
