"""A part of a user's own is one class and one YAML, found by `--config-dir`: nothing in src knows of it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import call
from torch import Tensor, nn

from langevin.assembly.saved import load_model
from langevin.checkpoint import read_checkpoint
from langevin.content import read_content
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import BatchDraws, Draws, SampleDraws
from langevin.diffusion.objective import Simple
from langevin.diffusion.parameterization import X
from langevin.diffusion.process import GaussianProcess, Process
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.time_sampler import UniformTimes
from langevin.diffusion.weighting import UnitX
from langevin.errors import UserError
from langevin.modalities.image import ImageModality
from langevin.samplers.ddim import DDIM
from langevin.samplers.derived import DerivedRequests
from langevin.samplers.reconstruct import Given
from langevin.samplers.requests import Labels
from langevin.samplers.sampler import Sampler
from langevin.samplers.timestep_spacing import Trailing
from langevin.spec import DataSpec
from tenants.parts import LinearCodec, Sine

CONF = Path(__file__).parent / "conf"
TINY = (
    f"--config-dir={CONF}",
    "model=unet_small",
    "model.channels=32",
    "model.channel_multipliers=[1]",
    "batch_size=8",
    "trainer.max_steps=4",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=4",
    "trainer.limit_val_batches=1",
    "trainer.accelerator=cpu",
    "callbacks=[checkpoint]",
)


@pytest.fixture
def train(tmp_path):
    def run(*overrides: str, name: str = "run", status: int = 0):
        found = call("train", *TINY, *overrides, f"output_dir={tmp_path}", f"name={name}")
        assert found[0] == status, found[2]
        return tmp_path / name

    return run


def losses(run: Path, column: str = "train/loss") -> list[float]:
    header, *rows = (line.split(",") for line in (run / "metrics.csv").read_text().splitlines())
    return [float(row[header.index(column)]) for row in rows if row[header.index(column)]]


@pytest.mark.parametrize(
    "overrides",
    [
        ("schedule=sine", "sampler.steps=5"),
        ("objective=log_cosh",),
        ("data=captioned_digits", "conditions=[caption]"),
        ("data=captioned_digits", "conditions=[class_label,caption]", "model.cross_attention=true"),
        ("data=captioned_digits", "conditions=[smaller]"),
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_a_part_trains_and_its_run_is_rebuilt(train, overrides):
    run = train(*overrides)
    assert len(losses(run)) == 4
    assert all(math.isfinite(loss) for loss in losses(run))
    checkpoint = run / "checkpoints" / "last.ckpt"
    if "objective=log_cosh" not in overrides:  # of which a model is not rebuilt
        with pytest.raises(UserError, match=r"trust=\[tenants\]"):
            load_model(checkpoint)
    assert load_model(checkpoint, ["tenants"]).step == 4


def test_a_column_that_the_data_does_not_supply_is_refused(tmp_path):
    found = call("train", *TINY, "data=digits", "conditions=[caption]", f"output_dir={tmp_path}")
    assert found.status == 1
    assert "conditions.caption: needs the caption of each sample, which this data does not supply" in found.err
    assert not list(tmp_path.iterdir())


def test_a_condition_reaches_the_network(train):
    run = train("data=captioned_digits", "conditions=[caption,smaller]", "trainer.max_steps=8", "optimizer.lr=0.01")
    denoiser = load_model(run / "checkpoints" / "last.ckpt", ["tenants"]).denoiser
    x, t = torch.randn(2, 1, 8, 8), torch.tensor(500.0, dtype=torch.float64)
    cond = {"caption": torch.tensor([[3, 11], [4, 10]]), "low_res": torch.zeros(2, 1, 4, 4)}
    before = denoiser(x, t, cond).x
    others = {"caption": torch.tensor([[3, 11], [5, 11]]), "low_res": torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)}
    others["low_res"] = cond["low_res"] + others["low_res"]
    for name, other in others.items():
        changed = (denoiser(x, t, {**cond, name: other}).x != before).flatten(1).any(1)
        assert changed.tolist() == [False, True]


DERIVED = ("data=digits", "conditions=[class_label,halved]", "likelihoods=[continuous_vlb]", "sampler.steps=2")
MEASURED = ("metrics=[energy_distance]", "evaluation.num_samples=20", "evaluation.every_n_steps=4")


@pytest.fixture(scope="module")
def derived(tmp_path_factory):
    """A run whose condition is computed of the samples, with samples, metrics and likelihoods in training."""
    folder = tmp_path_factory.mktemp("derived")
    others = ("callbacks=[checkpoint,samples]", "callbacks.samples.every_n_steps=4", "callbacks.samples.num_samples=4")
    found = call("train", *TINY, *DERIVED, *MEASURED, *others, f"output_dir={folder}", "name=run")
    assert found.status == 0, found.err
    return folder / "run"


def test_a_condition_is_computed_of_the_samples(derived):
    assert all(math.isfinite(loss) for loss in losses(derived))
    for column in ("val/loss", "val/continuous_vlb", "eval/energy_distance@20"):
        assert len(losses(derived, column)) == 1, column
    assert (derived / "samples" / "samples_00000004.png").is_file()
    (protocol,) = (derived / "evaluations").glob("protocol-*.json")
    held = read_content(derived)
    assert held is not None
    made = {"split": "test", "sha256": held.splits["test"].sha256}
    assert json.loads(protocol.read_text())["samples"]["derived"] == made


def test_a_model_is_evaluated_on_columns_of_its_data(derived):
    """As in training: the same samples of the same columns, and the same likelihoods."""
    of_model = (f"checkpoint={derived}", "trust=[tenants]", "accelerator=cpu")
    found = call("evaluate", *of_model, "metrics=[energy_distance]", "num_samples=20", f"out={derived / 'metrics'}")
    assert found.status == 0, found.err
    value = json.loads((derived / "metrics" / "metrics.json").read_text())["metrics"]["energy_distance@20"]
    assert value == losses(derived, "eval/energy_distance@20")[0]
    found = call("evaluate", *of_model, "likelihoods=[continuous_vlb]", "num_images=8", f"out={derived / 'metrics'}")
    assert found.status == 0, found.err
    held = json.loads((derived / "metrics" / "likelihood.json").read_text())["likelihoods"]["continuous_vlb"]
    assert held["bits_per_dim"] == pytest.approx(losses(derived, "val/continuous_vlb")[0], rel=1e-5)


def test_what_is_derived_is_of_the_samples_alone(derived):
    """By their places in the whole batch, whatever the process; and sampling's of (seed, i), for any batches."""
    model = load_model(derived / "checkpoints" / "last.ckpt", ["tenants"])
    x = torch.rand(8, 1, 8, 8) * 2 - 1
    whole = model.denoiser.derive(x, BatchDraws(7, x, 8))
    for rank in range(2):
        part = model.denoiser.derive(x[rank::2], BatchDraws(7, x[rank::2], 8, rank, 2))
        for name, column in part.items():
            assert torch.equal(column, whole[name][rank::2]), name
    assert whole["noise"].std() > 0.5
    given = Given(np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8, 1), np.array([7, 8, 9]), "test", "")
    requests = DerivedRequests(given, ImageModality(), Labels(10))
    assert requests.model_cond(model.denoiser, range(5), 0, "cpu")["label"].tolist() == [0, 1, 2, 3, 4]
    requests = DerivedRequests(given, ImageModality())
    columns = requests.model_cond(model.denoiser, range(5), 0, "cpu")
    assert columns["label"].tolist() == [7, 8, 9, 7, 8], "those of the samples"
    assert torch.equal(columns["half"][[3, 4]], columns["half"][[0, 1]])
    later = requests.model_cond(model.denoiser, [4], 0, "cpu")
    assert all(torch.equal(later[name], column[4:]) for name, column in columns.items())
    assert set(requests.cond(range(5))) == {"label"}


@pytest.mark.slow
def test_a_teacher_is_neither_trained_nor_saved(train):
    teacher = train("trainer.max_steps=30", "optimizer.lr=1e-2", "ema.max_decay=0", name="teacher")
    run = train("objective=distillation", f"objective.teacher={teacher}", "trainer.max_steps=60", "optimizer.lr=1e-2")
    assert losses(run)[-1] < losses(run)[0] / 2
    state = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    assert not [name for name in state if not name.startswith(("model.network.", "ema."))]


def test_two_roles_are_two_groups_of_one_optimizer(train):
    options = ("objective=uncertain", "optimizer.lr=0.01", "trainer.gradient_clip_val=0.5")
    whole = train(*options, "trainer.max_steps=6", name="whole")
    part = train(*options, "trainer.max_steps=3")
    assert train(*options, "trainer.max_steps=6") == part
    first, second = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (whole, part))
    assert [group["role"] for group in first["optimizer_states"][0]["param_groups"]] == ["model", "weighting"]
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name
    assert first["state_dict"]["objective.u.bias"] != 0
    assert len(losses(whole, "train/grad_norm/weighting")) == 6


@pytest.mark.parametrize("objective", ["simple", "uncertain"])
def test_an_auxiliary_is_added_to_any_objective(train, objective):
    """To one of the user's own too: it is trained, logged, saved and resumed, and no part of the model."""
    options = (f"objective={objective}", "auxiliaries=[edges]", "optimizer.lr=0.01")
    whole = train(*options, name="whole")
    part = train(*options, "trainer.max_steps=2")
    assert train(*options) == part
    first, second = (read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (whole, part))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert first["objective.auxiliaries.edges.scale"] != 1
    assert all(loss > 0 for loss in losses(whole, "train/edges"))
    assert len(losses(whole, "val/edges")) == 1
    if objective == "simple":
        assert losses(whole, "val/loss") == losses(whole, "val/mse")
        for loss, mse, edges in zip(
            *(losses(whole, f"train/{name}") for name in ("loss", "mse", "edges")), strict=True
        ):
            assert loss == pytest.approx(mse + 0.5 * edges, rel=1e-5)
    assert load_model(whole / "checkpoints" / "last.ckpt").step == 4, "which needs no code of the user's"


def test_batches_may_differ_in_size():
    """The same network on images of two sizes, one after the other."""
    denoiser = Denoiser(Convolution(), GaussianProcess(Linear(), X()))
    objective = Simple(UniformTimes(), UnitX())
    for size in (8, 12):
        x = torch.randn(4, 1, size, size + 2)
        terms = objective(denoiser, {"x": x}, BatchDraws(0, x, 4))
        assert terms["loss"].shape == (4,)
        assert terms["loss"].isfinite().all()


def test_each_part_of_a_sample_may_have_its_own_time():
    """Frames (B, N, C): at equal times they are what whole samples are, and each depends on its own time."""
    process = GaussianProcess(Sine(), X())
    denoiser = Denoiser(PerFrame(), process)
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    t = torch.tensor([[0.2, 0.5, 0.9], [0.1, 0.4, 0.6]], dtype=torch.float64)
    eps = torch.randn(2, 3, 4, dtype=torch.float64)
    noised = process.mix(x, eps, t)
    found = denoiser(noised.x_t, t)
    for sample in range(2):
        for frame in range(3):
            one = process.mix(x[sample, frame][None], eps[sample, frame][None], t[sample, frame])
            torch.testing.assert_close(noised.x_t[sample, frame], one.x_t[0])
            alone = denoiser(one.x_t[:, None], t[sample, frame].reshape(1, 1))
            torch.testing.assert_close(found.eps[sample, frame], alone.eps[0, 0])


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, c_noise, cond=None):
        return self.layer(x)


class PerFrame(nn.Module):
    def forward(self, x, c_noise, cond=None):
        return torch.tanh(x + c_noise[..., None] / 1000)


class Masking(Process):
    """Tokens, each masked with probability t: another process than noise.

    Source: MDLM (Sahoo et al. 2024).
    """

    MASK = 3

    def __init__(self) -> None:
        self.schedule = Sine()

    def output_channels(self, channels: int) -> int:
        return self.MASK

    def corrupt(self, x: Tensor, t: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        masked = draws.uniform()[:, None] < t
        return torch.where(masked, self.MASK, x), masked

    def prior(self, t: Tensor, draws: Draws) -> Tensor:
        return torch.full((len(draws.uniform()), *draws.shape), self.MASK)

    def present(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x_t, t.expand(len(x_t))

    def predict(self, output: Tensor, x_t: Tensor, t: Tensor):
        return torch.where((x_t == self.MASK)[..., None], output, nn.functional.one_hot(x_t.clamp(max=2), 3).to(output))

    def finish(self, x_t: Tensor, t: Tensor, draws: Draws) -> Tensor:
        return x_t


class Unmask(Sampler[None]):
    """The ancestral step of masking: of what is masked, the share ``(t - s) / t`` is revealed."""

    def step(self, denoise, x_t, t, s, state, draws):
        probabilities = denoise.denoise(x_t, t)
        reveal = draws.uniform()[:, None] < (t - s) / t
        chosen = (draws.uniform()[:, None, None] > probabilities.cumsum(-1)).sum(-1).clamp(max=2)
        return torch.where((x_t == Masking.MASK) & reveal, chosen, x_t), None


def test_another_process_is_sampled_by_a_sampler_of_its_own():
    """Independent tokens of known frequencies, by their exact denoiser."""
    truth = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

    class Exact(nn.Module):
        def forward(self, x, c_noise, cond=None):
            return truth.expand(*x.shape, 3).to(torch.float64)

    denoiser = Denoiser(Exact(), Masking())
    tokens = Unmask(Trailing(), None, 8)(denoiser, SampleDraws(0, range(4000), (1,)))
    assert tokens.shape == (4000, 1)
    frequencies = torch.bincount(tokens.flatten(), minlength=4).double() / 4000
    torch.testing.assert_close(frequencies[:3], truth, atol=0.03, rtol=0)
    assert frequencies[3] == 0


def test_a_model_without_labels_is_sampled_without_its_condition(train):
    """Nothing requests captions yet: each sample has the null one."""
    run = train("data=captioned_digits", "conditions=[caption]")
    found = call(
        "sample", f"checkpoint={run}", "trust=[tenants]", "num_samples=2", "sampler.steps=2", "accelerator=cpu"
    )
    assert found.status == 0, found.err
    wrong = call("sample", f"checkpoint={run}", "trust=[tenants]", "labels=3", "accelerator=cpu")
    assert wrong.status == 1
    assert "the model is not conditioned on labels, so leave labels out" in wrong.err


def test_a_codec_is_between_the_data_and_what_is_diffused(train, tmp_path):
    """Its latents are diffused, samples and their metrics are decoded, and its weights are kept with the model's."""
    metrics = ("metrics=[class_accuracy]", "evaluation.num_samples=20", "evaluation.every_n_steps=4")
    run = train("data=digits", "codec=linear", "conditions=[class_label]", *metrics, "sampler.steps=3")
    assert math.isfinite(losses(run, "eval/class_accuracy")[0])
    with pytest.raises(UserError, match=r"trust=\[tenants\]"):
        load_model(run / "checkpoints" / "last.ckpt")
    model = load_model(run / "checkpoints" / "last.ckpt", ["tenants"])
    assert (model.spec.shape, model.diffused.shape) == ((1, 8, 8), (4, 4, 4))
    matrix = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]["codec.matrix"]
    assert torch.equal(model.codec.matrix, matrix)
    options = (f"checkpoint={run}", "trust=[tenants]", "num_samples=4", "accelerator=cpu")
    found = call("sample", *options, "trajectory=3")
    assert found.status == 0, found.err
    with np.load(run / "generated" / "samples.npz") as arrays:
        assert (arrays["arr_0"].shape, arrays["arr_0"].dtype) == ((4, 8, 8, 1), np.uint8)
        made = json.loads(str(arrays["record"]))["samples"]
    assert made["codec"]["class"] == "tenants.parts.LinearCodec"
    assert made["thresholding"] is None
    with np.load(run / "generated" / "trajectory.npz") as arrays:
        assert arrays["x"].shape[1:] == (4, 8, 8, 1)
    edited = call("sample", *options, f"edit.images={run / 'generated'}", f"out={tmp_path / 'edited'}")
    assert edited.status == 0, edited.err


def test_an_orthogonal_codec_changes_no_sample():
    """The process is isotropic: what an exact denoiser makes of latents decodes to what it makes of the data."""
    spec = DataSpec((1, 2, 2), None, "", None)
    codec = LinearCodec(spec, size=2, kept=4, seed=3)
    mean = torch.tensor([0.5, -0.2, 0.1, 0.9]).reshape(1, 2, 2)
    z_mean = codec.encode(mean[None], SampleDraws(0, [0], (1, 2, 2)))[0]
    process = GaussianProcess(Linear(), X())
    sampler = DDIM(Trailing(), None, 20)

    def of(mean: Tensor, draws: Draws) -> Tensor:
        denoiser = Denoiser(PointMass(mean), process)
        return sampler(denoiser, draws)

    decoded = codec.decode(of(z_mean, SampleDraws(0, range(3), (1, 2, 2))))
    torch.testing.assert_close(decoded, of(mean, SampleDraws(0, range(3), (1, 2, 2))), atol=1e-5, rtol=0)
    torch.testing.assert_close(codec.decode(codec.encode(mean[None], SampleDraws(0, [0], (1, 2, 2)))), mean[None])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("codec=linear", "codec.kept=65"), "codec.kept: is 65; allowed: a multiple of 16, at most 64"),
        (("codec=linear", "thresholding=static"), "thresholding: Static keeps samples in [-1, 1]"),
        (("codec=linear", "likelihoods=[discrete_vlb]"), "likelihoods.discrete_vlb: DiscreteVLB is of images of 256"),
        (
            ("model=convolution_1d", "~model.channel_multipliers"),
            "model: is for samples of 2 axes, and these are of shape (1, 8, 8)",
        ),
        (("data=waves",), "model: is for images (C, H, W), and these are of shape (1, 16)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_not_fit_the_data_is_refused(tmp_path, options, message):
    found = call("train", *TINY, "data=digits", *options, f"output_dir={tmp_path}")
    assert found.status == 1
    assert message in found.err
    assert not list(tmp_path.iterdir())


def test_data_of_another_shape(tmp_path):
    """Waves (1, 16) of int16: a source, a modality and a network of the user's own."""
    own = (f"--config-dir={CONF}", "data=waves", "model=convolution_1d", "batch_size=8", "trainer.accelerator=cpu")
    steps = ("trainer.max_steps=4", "callbacks=[checkpoint,samples]", "trainer.val_check_interval=null")
    found = call("train", *own, *steps, "sampler.steps=3", f"output_dir={tmp_path}", "name=run")
    assert found.status == 0, found.err
    assert "64 waves of (1, 16)" in found.out
    run = tmp_path / "run"
    assert (run / "samples" / "samples_00000004.png").is_file()
    refused = call("sample", f"checkpoint={run}", "accelerator=cpu")
    assert (refused.status, "trust=[tenants]" in refused.err) == (1, True)
    found = call("sample", f"checkpoint={run}", "trust=[tenants]", "num_samples=4", "accelerator=cpu")
    assert found.status == 0, found.err
    with np.load(run / "generated" / "samples.npz") as arrays:
        assert (arrays["arr_0"].shape, arrays["arr_0"].dtype) == ((4, 16, 1), np.int16)
    found = call("sample", f"checkpoint={run}", "trust=[tenants]", "png=true", "accelerator=cpu")
    assert (found.status, "png is true; allowed: false" in found.err) == (1, True)


class PointMass(nn.Module):
    """The exact prediction where all data is one sample."""

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, x, c_noise, cond=None):
        return self.mean.expand(x.shape)
