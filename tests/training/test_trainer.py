"""What a trainer may be, and who starts its processes."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.commands import ROOT
from training_helpers import QUIET, TINY, train

from langevin.checkpoint import read_checkpoint


def torchrun(folder, processes, *options):
    last = {option.partition("=")[0]: option for option in (*TINY, *QUIET, *options)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*launcher, ROOT / "train.py", *last.values(), f"output_dir={folder}", "name=run"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_torchrun_starts_the_processes(tmp_path):
    done = torchrun(tmp_path, 2, "trainer.devices=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on cpu x 2") == 1
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 6


@pytest.mark.slow
def test_torchrun_must_start_as_many_as_the_config_has(tmp_path):
    """Else each would train alone, into one folder."""
    done = torchrun(tmp_path, 2, "trainer.devices=1")
    assert done.returncode != 0
    assert "is 1 and num_nodes=1, but torchrun started 2 processes; allowed: --nproc-per-node equal to" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("strategy", ["deepspeed", "dpp"])
def test_a_strategy_that_is_not_ours_is_refused(tmp_path, strategy):
    run = train(tmp_path, f"trainer.strategy={strategy}", status=1)
    assert f"trainer.strategy: is '{strategy}'; allowed: one of auto, ddp, " in run.err


def test_shares_of_one_process_are_refused(tmp_path):
    run = train(tmp_path, "trainer.strategy=fsdp", status=1)
    assert "  trainer.strategy: is fsdp; allowed with several processes, and devices=1, num_nodes=1 is one" in run.err
    assert not run.directory.exists()


def test_shares_in_float16_are_refused(tmp_path):
    run = train(tmp_path, "trainer.strategy=fsdp", "trainer.devices=2", "trainer.precision=16-mixed", status=1)
    assert "1 mistake in the config" in run.err
    assert "  trainer.precision: is 16-mixed; allowed with strategy=fsdp: 32-true, bf16-mixed" in run.err
    assert not run.directory.exists()


def test_float16_on_a_cpu_is_refused(tmp_path):
    run = train(tmp_path, "trainer.precision=16-mixed", status=1)
    assert "trainer.precision: is 16-mixed; allowed on a CPU, where Lightning would take bf16: 32-true" in run.err
    assert not run.directory.exists()


def test_without_our_progress_there_is_no_bar_that_counts_epochs(tmp_path):
    run = train(tmp_path, "callbacks=[checkpoint]", "trainer.max_steps=2")
    assert "Epoch" not in run.out + run.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("preset", ["gpu", "ddp", "fsdp"])
def test_a_gpu_that_is_not_there_is_named(tmp_path, preset):
    # TINY's accelerator is left out: the preset's own counts.
    run = train(tmp_path, f"trainer={preset}", "trainer.accelerator=gpu", status=1)
    assert "trainer.accelerator: is gpu, but torch finds no NVIDIA GPU on this machine; allowed here" in run.err
