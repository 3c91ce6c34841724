import pytest
from helpers.commands import composed
from omegaconf import OmegaConf

from langevin.config.identity import automatic_name, differences, identity

# How a run is watched, stored or sped up.
SAME = [
    ("trainer.max_steps=7",),
    ("trainer.devices=2", "trainer.strategy=ddp"),
    ("trainer=ddp_cpu",),
    ("trainer.log_every_n_steps=1", "trainer.val_check_interval=null"),
    ("loggers=[tensorboard]",),
    ("callbacks=[progress]",),
    ("callbacks.samples.every_n_steps=10",),
    ("metrics=[fid]", "evaluation.num_samples=100"),
    ("features.weights=there",),
    ("sampler=ancestral", "timestep_spacing=leading"),
    ("thresholding=dynamic",),
    ("output_dir=elsewhere",),
    ("resume=false",),
    ("name=mine",),
    ("loader.cache_dir=elsewhere", "loader.num_workers=2"),
    ("guidance=none",),
    ("conditions=null",),
    ("init.checkpoint=elsewhere",),
    ("auxiliaries=[]",),
]
# What is trained.
OTHER = [
    ("seed=1",),
    ("batch_size=64",),
    ("model=unet",),
    ("model.dropout=0.1",),
    ("model.norm_groups=16",),
    ("schedule=cosine",),
    ("schedule.num_steps=500",),
    ("optimizer.lr=1e-3",),
    ("lr_schedule.steps=10",),
    ("ema.max_decay=0.99",),
    ("ema=images",),
    ("conditions=[class_label]",),
    ("variance=fixed_small",),
    ("rescalings=[zero_terminal_snr]",),
    ("rescalings=[input_scaling,resolution_shift]",),
    ("parameterization=v",),
    ("objective=l1",),
    ("weighting=min_snr",),
    ("time_sampler=stratified",),
    ("formulation=edm",),
    ("data.flip=true",),
    ("data=cifar10",),
    ("trainer.precision=bf16-mixed",),
    ("trainer.gradient_clip_val=null",),
    ("init.weights=abc",),
]


def name(*overrides):
    return automatic_name(*composed("train", *overrides))


@pytest.fixture(scope="module")
def default():
    return name()


def test_a_name_says_the_main_choices(default):
    assert default.rpartition("-")[0] == "digits-unet_small-linear"
    assert name("experiment=digits").rpartition("-")[0] == "digits-unet_small-cosine"
    assert name("data=cifar10", "model=unet", "schedule=cosine").rpartition("-")[0] == "cifar10-unet-cosine"


def test_the_same_command_has_the_same_name(default):
    assert name() == default
    assert name("seed=0", "schedule=linear", "schedule.num_steps=1000") == default
    assert name("optimizer.lr=2e-4") == name("optimizer.lr=0.0002") == default


@pytest.mark.parametrize("overrides", SAME, ids=" ".join)
def test_how_a_run_is_watched_is_no_part_of_it(overrides, default):
    assert name(*overrides) == default


@pytest.mark.parametrize("overrides", OTHER, ids=" ".join)
def test_what_is_trained_makes_another_run(overrides, default):
    assert name(*overrides) != default


def test_where_the_images_lie_is_no_part_of_a_run_and_what_they_are_is():
    def named(path, content):
        return automatic_name(*composed("train", "data=image_folder", f"data.path={path}"), content)

    assert named("here", "1") == named("there", "1")
    assert len({named("here", content) for content in ("1", "2", None)}) == 3


def test_an_option_that_was_added_later_renames_no_run():
    cfg, choices = composed("train", "data=image_folder", "data.path=here")
    found = automatic_name(cfg, choices)
    assert found != automatic_name(*composed("train", "data=image_folder", "data.path=here", "data.resize=pad"))
    assert cfg.data.resize == "crop"
    before = cfg.copy()
    del before.data.resize
    del before.model.norm_groups
    assert automatic_name(before, choices) == found
    assert differences(before, cfg) == differences(cfg, before) == []
    other = cfg.copy()
    other.data.resize, other.model.norm_groups = "pad", 8
    assert differences(before, other) == [
        "data.resize: crop in the run, pad now",
        "model.norm_groups: None in the run, 8 now",
    ]
    assert differences(other, before) == [
        "data.resize: pad in the run, crop now",
        "model.norm_groups: 8 in the run, None now",
    ]


def test_an_option_of_one_network_that_others_always_had_renames_no_run():
    cfg, choices = composed("train", "model=dit_s", "conditions=[class_label]")
    before = cfg.copy()
    del before.model.cross_attention
    assert automatic_name(before, choices) == automatic_name(cfg, choices)
    other = cfg.copy()
    other.model.cross_attention = True
    assert differences(before, other) == ["model.cross_attention: False in the run, True now"]
    assert "model.cross_attention" in identity(composed("train")[0])


def test_all_cells_of_a_sweep_differ():
    cells = {
        name(f"schedule={schedule}", f"seed={seed}", f"model.dropout={dropout}")
        for schedule in ("linear", "cosine")
        for seed in (0, 1)
        for dropout in (0.0, 0.1)
    }
    assert len(cells) == 8


def test_differences_are_reported_one_a_line():
    old, _ = composed("train", "schedule.s=0.01", "schedule=cosine")
    new, _ = composed("train", "seed=3", "trainer.max_steps=5")
    assert differences(old, new) == [
        "schedule._target_: langevin.diffusion.schedules.cosine.Cosine in the run, "
        "langevin.diffusion.schedules.linear.Linear now",
        "schedule.beta_end: absent in the run, 0.02 now",
        "schedule.beta_max: 0.999 in the run, absent now",
        "schedule.beta_start: absent in the run, 0.0001 now",
        "schedule.rescale: absent in the run, True now",
        "schedule.s: 0.01 in the run, absent now",
        "seed: 0 in the run, 3 now",
    ]


def test_differences_of_a_stored_config_are_none():
    cfg, _ = composed("train", "experiment=digits")
    stored = OmegaConf.create(OmegaConf.to_yaml(cfg, resolve=True))
    assert differences(stored, cfg) == []
    assert identity(cfg)["model.channels"] == 32
