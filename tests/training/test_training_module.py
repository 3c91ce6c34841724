import itertools
import math

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from training_helpers import BUSY, QUIET, VALIDATED, column, differing, numbers, read_csv, train, trained

from langevin.assembly.components import make_objective
from langevin.assembly.run import make_data, make_module
from langevin.assembly.saved import load_model
from langevin.checkpoint import read_checkpoint
from langevin.data.digits import Digits
from langevin.diffusion.draws import BatchDraws
from langevin.diffusion.time_sampler import UniformTimes
from langevin.images import from_uint8
from langevin.training.module import DiffusionModule, step_seed

BATCH = 8


def test_every_batch_and_rank_has_its_own_seed():
    """And so have the numbers that belong to no rank, and the batches of a validation."""
    seeds = [step_seed(7, rank, batch) for rank in (None, *range(4)) for batch in range(5000)]
    seeds += [step_seed(7, None, batch, validation=True) for batch in range(5000)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Torch's CPU generator looks at 32 bits: a few of so many may coincide, by chance.
    assert len({seed % 2**32 for seed in seeds}) > len(seeds) - 5
    draws = [torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed)).item() for seed in seeds[:1000]]
    assert len(set(draws)) == len(draws)
    assert len({step_seed(seed, 0, 0) for seed in range(1000)}) == 1000


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """A run of six steps with validations on the whole test set, the last batch of which is smaller."""
    return train(tmp_path_factory.mktemp("validated"), *QUIET, *VALIDATED, "trainer.limit_val_batches=1.0")


def loss_on_test_set(run, weights):
    """The validation loss, computed here: the same times and noise, with the weights of a prefix of the state dict."""
    model = load_model(run.last)
    state = read_checkpoint(run.last)["state_dict"]
    model.denoiser.network.load_state_dict(
        {name.removeprefix(weights): value for name, value in state.items() if name.startswith(weights)}
    )
    test_set = Digits().load("test")
    x, labels = from_uint8(torch.from_numpy(test_set.lazy.array)[:, None]), torch.from_numpy(test_set.labels)
    objective = make_objective(model.cfg, model.spec)
    losses = []
    for index, part in enumerate(torch.arange(len(x)).split(BATCH)):
        draws = BatchDraws(step_seed(model.cfg.seed, None, index, validation=True), x[part], BATCH)
        t = UniformTimes().sample(BATCH, model.denoiser.schedule, draws.shared)[0][: len(part)]
        noised = model.denoiser.process.mix(x[part], draws.normal(), t)
        losses.append(objective.terms(model.denoiser, x[part], noised, {"label": labels[part]}, t)["loss"])
    return torch.cat(losses).double().mean().item()


def test_the_validation_loss_is_that_of_the_ema_weights(validated):
    assert list(column(validated.rows, "val/loss")) == [2, 4, 6]
    logged = column(validated.rows, "val/loss")[6]
    assert logged == pytest.approx(loss_on_test_set(validated, "ema.network."), rel=1e-6)
    assert abs(logged / loss_on_test_set(validated, "model.network.") - 1) > 1e-3
    assert column(validated.rows, "val/mse") == pytest.approx(column(validated.rows, "val/loss"), rel=1e-6)


def test_validation_losses_compare(tmp_path, validated):
    """Every validation has the same noise: without learning, they agree to the last bit."""
    still = train(tmp_path, *QUIET, *VALIDATED, "optimizer.lr=0")
    losses = column(still.rows, "val/loss")
    assert list(losses) == [2, 4, 6]
    assert len(set(losses.values())) == 1
    assert len(set(column(validated.rows, "val/loss").values())) == 3
    assert len(set(column(still.rows, "train/loss").values())) == 6


def test_the_average_follows_the_weights(tmp_path):
    """The module hands the average its steps and images, once a step."""
    steps = [numbers(train(tmp_path, *QUIET, f"trainer.max_steps={step}").last) for step in (1, 2, 3)]
    name = "network.first.weight"
    average = steps[0][f"ema.{name}"]
    for step in (2, 3):
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * steps[step - 1][f"model.{name}"]
        torch.testing.assert_close(steps[step - 1][f"ema.{name}"], average, rtol=1e-6, atol=1e-8)


def test_no_average_is_the_weights(tmp_path):
    kept = trained(train(tmp_path, *QUIET, "ema.max_decay=0", "trainer.max_steps=2"))
    average = {name.removeprefix("ema."): value for name, value in kept.items() if name.startswith("ema.")}
    assert average
    assert differing(average, {name: kept[f"model.{name}"] for name in average}) == []


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("clip", ["null", "0.5"])
def test_the_logged_norm_is_the_gradients(tmp_path, monkeypatch, clip, accumulate):
    """It is the norm before clipping, of the whole step's gradient; and what the optimizer is given is clipped."""
    before, given = [], []
    clipping = DiffusionModule.configure_gradient_clipping

    def norm(parameters):
        return math.sqrt(sum(weight.grad.double().square().sum().item() for weight in parameters))

    def look_before(self, *args, **kwargs):
        before.append(norm(self.model.network.parameters()))
        clipping(self, *args, **kwargs)
        given.append(norm(self.model.network.parameters()))

    monkeypatch.setattr(DiffusionModule, "configure_gradient_clipping", look_before)
    run = train(
        tmp_path,
        *QUIET,
        f"trainer.gradient_clip_val={clip}",
        f"trainer.accumulate_grad_batches={accumulate}",
        "trainer.max_steps=3",
    )
    assert len(before) == 3
    assert list(column(run.rows, "train/grad_norm").values()) == pytest.approx(before, rel=1e-5)
    assert min(before) > 1
    assert given == pytest.approx(before if clip == "null" else [0.5] * 3, rel=1e-5)


def test_the_gradient_is_the_mean_over_all_images_of_the_step(tmp_path):
    """Of the first step, by hand: the same network, images, times and noise, one after the other micro-batch."""
    run = train(
        tmp_path, *QUIET, "trainer.accumulate_grad_batches=2", "trainer.max_steps=1", "trainer.gradient_clip_val=null"
    )
    cfg = OmegaConf.load(run.directory / "config.yaml")
    data = make_data(cfg)
    data.prepare_data()
    torch.manual_seed(cfg.seed)
    module = make_module(cfg, data.spec)
    batches = list(itertools.islice(data.train_dataloader(), 2))
    for index, batch in enumerate(batches):
        batch = data.on_after_batch_transfer(batch, 0)
        x = batch["x"]
        assert len(x) == BATCH // 2
        draws = BatchDraws(step_seed(cfg.seed, None, index), x, len(x))
        t, _ = UniformTimes().sample(len(x), module.model.schedule, draws.shared)
        eps = draws.normal()
        dropped = draws.uniform() < cfg.conditions.class_label.dropout
        label = batch["label"].masked_fill(dropped, -1)
        torch.manual_seed(step_seed(cfg.seed, 0, index))
        noised = module.model.process.mix(x, eps, t)
        loss = module.objective.terms(module.model, x, noised, {"label": label}, t)["loss"]
        (loss.sum() / BATCH).backward()
    norm = nn.utils.get_total_norm([weight.grad for weight in module.model.network.parameters()])
    assert column(run.rows, "train/grad_norm") == pytest.approx({1: norm.item()}, rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_are_finished_optimizer_steps(tmp_path, accumulate):
    options = (*QUIET, *VALIDATED, f"trainer.accumulate_grad_batches={accumulate}")
    train(tmp_path, *options, "trainer.max_steps=3")
    run = train(tmp_path, *options, "trainer.max_steps=5")
    rows = read_csv(run.directory / "metrics.csv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    for name in ("train/loss", "train/mse", "train/grad_norm", "train/learning_rate"):
        assert list(column(rows, name)) == [1, 2, 3, 4, 5]
    assert list(column(rows, "val/loss")) == [2, 4]
    assert read_checkpoint(run.last)["global_step"] == 5


def test_rows_come_every_so_many_steps(tmp_path):
    run = train(tmp_path, *QUIET, "trainer.log_every_n_steps=4", "trainer.max_steps=9")
    assert [row["step"] for row in run.rows] == ["4", "8"]


@pytest.mark.parametrize("offset", [100_001, 3_333_333])
def test_steps_are_counted_exactly_late_in_a_run(tmp_path, monkeypatch, offset):
    """A validation's step is not the rounded mean of its batches' steps."""
    monkeypatch.setattr(DiffusionModule, "global_step", property(lambda self: self.trainer.global_step + offset))
    run = train(tmp_path, *QUIET, *VALIDATED, "trainer.limit_val_batches=1.0", "trainer.max_steps=4")
    rows = read_csv(run.directory / "metrics.csv")
    assert [int(row["step"]) for row in rows] == [offset + step for step in (1, 2, 3, 4)]
    assert list(column(rows, "val/loss")) == [offset + 2, offset + 4]


@pytest.mark.slow
def test_half_precision(tmp_path):
    """The forward pass is another, the weights and averages stay in float32, and a resumed run is still the same."""
    options = (*BUSY, "trainer.precision=bf16-mixed", "trainer.max_steps=4")
    train(tmp_path, *options, "trainer.max_steps=2")
    resumed, whole = train(tmp_path, *options), train(tmp_path, *options, name="whole")
    assert differing(trained(resumed), trained(whole)) == []
    assert {value.dtype for name, value in trained(whole).items() if "network" in name} == {torch.float32}
    losses = column(whole.rows, "train/loss")
    plain = column(train(tmp_path, *QUIET, "trainer.max_steps=4", name="plain").rows, "train/loss")
    assert losses == pytest.approx(plain, rel=0.05)
    assert all(losses[step] != plain[step] for step in (2, 3, 4))  # at the first step, the network says 0
