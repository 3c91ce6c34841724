"""Runs with sharded weights (trainer.strategy=fsdp), on two processes (gloo): the same as any others."""

import json

import numpy as np
import pytest
import torch
from helpers.commands import ROOT, call
from helpers.images import shown
from PIL import Image
from training_helpers import BUSY, TINY, Run, column, differing, start, train, trained

from langevin.assembly.saved import load_model
from langevin.checkpoint import read_checkpoint
from langevin.digest import digest_of
from langevin.files import write_atomically

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# Dropout inside the network is each process's own. Where a gradient is nearly zero, Adam's steps are of rounding alone.
OWN = tuple(option for option in TINY if not option.startswith("model"))
UNET = ("model=unet_small", "model.channels=32", "model.channel_multipliers=[1]", "model.dropout=0")
DIT = ("model=dit_s", "model.width=32", "model.depth=2", "model.heads=2")
EDM2 = (
    *("model=edm2_xs", "model.channels=16", "model.channel_multipliers=[1,2]", "model.blocks_per_level=1"),
    *("model.head_channels=16", "formulation=edm", "schedule=edm", "objective=uncertainty", "optimizer.lr=1e-2"),
)
FEW = ("optimizer.eps=1e-2", "trainer.max_steps=4")
STEPS = 40
CURVES = (
    "callbacks=[checkpoint]",
    "optimizer.eps=1e-2",
    "batch_size=16",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=10",
    "trainer.limit_val_batches=3",
)

# A script that trains, and writes down what each process holds, and what the evaluation believes that it measures.
LOOK = """
import json
from pathlib import Path
import langevin.commands.train
from langevin.digest import digest_of
from langevin.evaluation import model as evaluation
from langevin.files import write_atomically
from langevin.training.module import DiffusionModule
from training_helpers import held

step, end, digests = DiffusionModule.configure_gradient_clipping, DiffusionModule.on_train_end, []
gradients = 0

def look(self, *args, **kwargs):
    global gradients
    gradients = held([weight.grad for weight in self.model.network.parameters()])
    step(self, *args, **kwargs)

def watched(network):
    digests.append(digest_of(network))
    return digests[-1]

def write(self):
    weights, average = list(self.model.network.parameters()), list(self.ema.network.parameters())
    states = self.optimizers().optimizer.state.values()
    found = {
        "all": sum(4 * weight.numel() for weight in weights),
        "held": {
            "weights": held(weights),
            "gradients": gradients,
            "average": held(average),
            **{name: held([state[name] for state in states]) for name in ("exp_avg", "exp_avg_sq")},
        },
        "digests": digests,
    }
    (Path(__file__).parent / f"rank_{self.global_rank}.json").write_text(json.dumps(found))
    end(self)

DiffusionModule.configure_gradient_clipping, DiffusionModule.on_train_end = look, write
evaluation.digest_of = watched
langevin.commands.train.main()
"""


def run_by(strategy, processes, folder, *options, script=ROOT / "train.py"):
    given = (*OWN, *options, f"trainer.strategy={strategy}", f"trainer.devices={processes}", f"output_dir={folder}")
    last = {option.partition("=")[0]: option for option in (*given, "name=run")}
    return Run(0, *start(script, *last.values()), folder / "run")


def assert_same_curves(runs, steps, rel=1e-5):
    for name in ("train/loss", "train/grad_norm", "val/loss"):
        first, *others = (column(run.rows, name) for run in runs)
        assert len(first) == (steps // 10 if name == "val/loss" else steps)
        for other in others:
            assert other == pytest.approx(first, rel=rel, abs=1e-7), name  # a learned loss passes 0


def assert_close(runs, bound=1e-5):
    """Weights, average and moments are the same, to a share of each tensor's norm."""
    first, *others = (trained(run) for run in runs)
    for other in others:
        assert other.keys() == first.keys()
        for name, value in first.items():
            assert (other[name] - value).double().norm() <= bound * value.double().norm(), name


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Busy with all that goes on beside training."""
    folder = tmp_path_factory.mktemp("fsdp")
    (folder / "look.py").write_text(LOOK)
    return run_by("fsdp", 2, folder, *UNET, *BUSY, *FEW, script=folder / "look.py")


@pytest.fixture(scope="module")
def ranks(run):
    return [json.loads((run.directory.parent / f"rank_{rank}.json").read_text()) for rank in (0, 1)]


def test_each_process_holds_half(ranks):
    """In the end, after validations, samples and evaluations of the whole average."""
    assert ranks[0]["held"].keys() == {"weights", "gradients", "average", "exp_avg", "exp_avg_sq"}
    for kind, held in ranks[0]["held"].items():
        both = held + ranks[1]["held"][kind]
        assert ranks[0]["all"] <= both < 1.03 * ranks[0]["all"], kind
        assert held == pytest.approx(both / 2, rel=0.05), kind


def test_it_is_the_run_of_one_process(run, tmp_path):
    one = train(tmp_path, *UNET, *BUSY, *FEW)
    names = ("train/loss", "train/grad_norm", "val/loss", "eval/class_accuracy")
    for name in names:
        assert column(run.rows, name) == pytest.approx(column(one.rows, name), rel=1e-5), name
    assert_close([run, one])
    files = [sorted(str(path.relative_to(each.directory)) for path in each.directory.rglob("*")) for each in (run, one)]
    assert files[0] == files[1]
    assert "Traceback" not in run.err
    assert "returned a view" not in run.err


def test_its_samples_and_measures_are_those_of_its_checkpoint(run, ranks):
    for rank in ranks:
        assert rank["digests"][-1] == digest_of(load_model(run.last).denoiser.network)
    place = run.directory / "one"
    assert call("sample", f"checkpoint={run.directory}", "num_samples=8", "seed=0", f"out={place}").status == 0
    images = torch.from_numpy(np.load(place / "samples.npz")["arr_0"]).movedim(-1, 1)
    page = np.asarray(Image.open(run.directory / "samples" / "samples_00000004.png").convert("RGB"))
    rows = shown(page, rows=2, columns=2, captions=True)
    assert np.array_equal(np.stack([image for row in rows for image in row]), images[:4, 0])
    assert call("evaluate", "data=digits", "metrics=[class_accuracy]", f"samples={place}").status == 0
    value = json.loads((place / "metrics.json").read_text())["metrics"]["class_accuracy"]
    assert column(run.rows, "eval/class_accuracy")[4] == pytest.approx(value, rel=1e-9)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run_by("fsdp", 2, tmp_path_factory.mktemp("undisturbed"), *UNET, *CURVES)


def test_the_curves_and_the_weights_are_those_of_other_strategies(undisturbed, tmp_path):
    worlds = (("auto", 1), ("ddp", 2), ("fsdp", 4))
    runs = [undisturbed, *(run_by(*world, tmp_path / "-".join(map(str, world)), *UNET, *CURVES) for world in worlds)]
    assert_same_curves(runs, STEPS)
    assert_close(runs)


def test_so_are_a_transformers(tmp_path):
    runs = [run_by(*world, tmp_path / world[0], *DIT, *CURVES) for world in (("auto", 1), ("fsdp", 2))]
    assert_same_curves(runs, STEPS)
    assert_close(runs)


def test_so_are_those_of_weights_whose_magnitudes_are_forced(tmp_path):
    """Each process forces those of its own rows; the weights of the objective are on both."""
    steps = 10
    given = (*EDM2, *CURVES, f"trainer.max_steps={steps}")
    runs = [run_by(*world, tmp_path / world[0], *given) for world in (("auto", 1), ("fsdp", 2))]
    assert_same_curves(runs, steps)
    assert_close(runs, bound=1e-4)  # a gain is one number, next to 0


def test_so_are_those_of_compiled_blocks(undisturbed, tmp_path):
    assert_same_curves([undisturbed, run_by("fsdp", 2, tmp_path, *UNET, *CURVES, "compile=true")], STEPS)


@pytest.mark.parametrize(
    ("options", "rel"),
    [
        (("optimizer=adam", "trainer.accumulate_grad_batches=2"), 1e-5),
        (("trainer.precision=bf16-mixed",), 1e-2),
        (("objective=uncertainty", "trainer.accumulate_grad_batches=2"), 1e-5),
    ],
    ids=["adam and micro-batches", "bfloat16", "weights of the objective"],
)
def test_so_they_are_with(options, rel, tmp_path):
    steps = 20
    worlds = ("ddp", "fsdp")
    given = (*UNET, *CURVES, *options, f"trainer.max_steps={steps}")
    assert_same_curves([run_by(world, 2, tmp_path / world, *given) for world in worlds], steps, rel)


def test_a_resumed_run_is_the_undisturbed_run(undisturbed, tmp_path):
    run_by("fsdp", 2, tmp_path, *UNET, *CURVES, "trainer.max_steps=17")
    resumed = run_by("fsdp", 2, tmp_path, *UNET, *CURVES)
    assert f"from step 17 to {STEPS}" in resumed.out
    assert differing(trained(resumed), trained(undisturbed)) == []
    assert resumed.rows == undisturbed.rows


def test_a_run_resumes_under_any_other_strategy(undisturbed, tmp_path):
    for steps, world in ((10, ("fsdp", 2)), (20, ("auto", 1)), (30, ("fsdp", 2)), (STEPS, ("ddp", 2))):
        run = run_by(*world, tmp_path, *UNET, *CURVES, f"trainer.max_steps={steps}")
        assert f"from step {steps - 10} to {steps};" in run.out
    assert_same_curves([undisturbed, run], STEPS)
    assert_close([undisturbed, run])


def test_moments_in_another_memory_format_are_taken_up(tmp_path):
    """Shares are gathered in the usual one; a convolution's own, and what torch's fused optimizers expect, is not."""
    whole = train(tmp_path, *UNET, "callbacks=[checkpoint]", name="whole")
    run = train(tmp_path, *UNET, "callbacks=[checkpoint]", "trainer.max_steps=3")
    checkpoint, changed = read_checkpoint(run.last), 0
    for state in checkpoint["optimizer_states"][0]["state"].values():
        for name, value in state.items():
            changed += not value.is_contiguous()
            state[name] = value.contiguous()
    assert changed > 0
    write_atomically(run.last, lambda file: torch.save(checkpoint, file))  # whose tensors still lie in the old file
    resumed = train(tmp_path, *UNET, "callbacks=[checkpoint]")
    assert "from step 3 to 6" in resumed.out
    assert differing(trained(resumed), trained(whole)) == []
