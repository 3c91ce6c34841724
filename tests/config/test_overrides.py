"""What a shell gives as a text is that text."""

import pytest
from helpers.commands import composed
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from langevin.cli import force_add_override
from langevin.config.options import RUN_OPTIONS
from langevin.config.overrides import is_text, literal, quoted, require_consistent, settle
from langevin.config.validate import CONF, groups_of
from langevin.errors import UserError

OWN = groups_of("train")
TEXTS = [
    "dü",
    "x (1), y=2#z",
    "p/epoch=3-step=2.ckpt",
    "a b (c), d#e/x.ckpt",
    "2024",
    "1_1_1",
    "true",
    "nan",
    "~/d",
    "it's",
    "a\\",
    "\\'",
    "a,b",
    "choice(a,b)",
    "{a: 1}",
    "plain/name-1.ckpt",
]


def read(argument):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [force_add_override(argument, OWN)])


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key", ["name", "loader.cache_dir"])
def test_a_text_stays_as_it_is(key, text):
    argument = literal(f"{key}={text}", RUN_OPTIONS, OWN, sweeps=False)
    assert OmegaConf.select(read(argument), key) == text
    assert literal(argument, RUN_OPTIONS, OWN, sweeps=False) == argument, "a process started by this one reads it too"


def test_what_is_plain_is_not_quoted():
    for argument in (
        "name=mine",
        "name=null",
        "name='a b'",
        "name=${seed}",
        "seed=7",
        "schedule.num_steps=1_000",
        "-m",
    ):
        assert literal(argument, RUN_OPTIONS, OWN, sweeps=False) == argument


def test_an_unquoted_comma_sweeps_where_it_is_asked_to():
    for argument in ("name=a,b", "name=choice(a,b)", "name='a,b'"):
        assert literal(argument, RUN_OPTIONS, OWN, sweeps=True) == argument
    assert literal("name=dü,2024,c", RUN_OPTIONS, OWN, sweeps=True) == "name='dü','2024',c"


def test_which_options_are_texts():
    texts = ("name", "output_dir", "data.path", "features.checkpoint", "guidance.weaker", "loggers.wandb.project")
    others = ("seed", "trust", "trainer.devices", "data.image_size", "sampler.steps", "no.such", "callbacks.samples")
    assert [key for key in (*texts, *others) if is_text(key, RUN_OPTIONS, OWN)] == list(texts)


def test_quotes_are_hydras():
    for text in TEXTS:
        assert read(f"name={quoted(text)}").name == text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["name=a", "name.b=c"], "name=a: name.b is given too"),
        (["model.channels=32", "model.channels.x=1"], "model.channels=32: model.channels.x is given too"),
        (["model=7"], "model=7: no such option; allowed: adm_64"),
        (["callbacks=[ema,checkpoint,ema]"], "ema,checkpoint,ema]: names one of them twice; allowed: each once"),
    ],
)
def test_nothing_is_lost_without_a_word(arguments, words):
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        require_consistent(arguments, OWN)
    require_consistent(["model=unet", "model.channels=32", "callbacks=[checkpoint]", "name=null", "name=a"], OWN)


def settled(*overrides):
    cfg = composed("train", *overrides)[0]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settle(cfg, overrides, OWN)
    return cfg


def test_a_replaced_part_has_nothing_of_the_experiment():
    cfg = settled("experiment=digits", "ema=images", "model=dit_s", "callbacks=[checkpoint]", "optimizer=adam")
    assert cfg.ema == composed("train", "ema=images")[0].ema
    assert cfg.model == composed("train", "model=dit_s")[0].model
    assert list(cfg.callbacks) == ["checkpoint"]
    assert cfg.optimizer.lr == composed("train", "optimizer=adam")[0].optimizer.lr
    assert cfg.sampler.steps == composed("train", "experiment=digits")[0].sampler.steps


def test_what_is_typed_and_what_is_no_other_part_stays():
    cfg = settled(
        "experiment=digits", "ema=images", "ema.half_life=7", "trainer=ddp_cpu", "callbacks=[samples,progress]"
    )
    assert cfg.ema.half_life == 7
    digits = composed("train", "experiment=digits")[0]
    assert cfg.trainer.max_steps == digits.trainer.max_steps
    assert cfg.trainer.devices == 2
    assert cfg.callbacks.samples == digits.callbacks.samples


def test_a_class_by_its_path_keeps_the_fields_that_it_takes():
    cfg = settled("optimizer._target_=torch.optim.SGD", "optimizer.lr=0.1")
    assert cfg.optimizer == {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.0}
    cfg = settled("optimizer._target_=torch.optim.SGD", "optimizer.eps=0.1")
    assert cfg.optimizer.eps == 0.1, "typed, so that it is reported"
    adamw = composed("train")[0].optimizer
    assert settled("~optimizer._target_").optimizer == {key: adamw[key] for key in adamw if key != "_target_"}
    for target in ("torch.optim.NoSuch", "null", "${nothing}"):
        assert list(settled(f"optimizer._target_={target}").optimizer) == list(adamw)


def test_the_command_line_is_above_debug_and_debug_above_the_experiment():
    cfg = settled("experiment=digits", "debug=fast", "trainer.log_every_n_steps=3", "optimizer=adam", "sampler=heun")
    digits = composed("train", "experiment=digits")[0]
    assert digits.trainer.max_steps != cfg.trainer.max_steps == 4
    assert cfg.trainer.log_every_n_steps == 3
    assert cfg.optimizer.lr == composed("train", "optimizer=adam")[0].optimizer.lr
    assert cfg.sampler.steps == 2
    assert list(cfg.metrics) == ["class_accuracy"], "nothing of metrics that were not chosen"
    assert settled("debug=fast", "name=mine").name == "debug_fast-mine"
    assert settled("experiment=digits", "name=mine").name == "mine"
