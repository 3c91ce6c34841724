"""A run that is stopped and run again ends in the bits of one that was not."""

from gpu_helpers import options
from training_helpers import QUIET, differing, train, trained

STEPS, STOP = 8, 3
LARGER = ("model.channels=64", "model.channel_multipliers=[1,2]", "model.attention_resolutions=[8]", "batch_size=32")


def stopped_and_whole(folder, *extra):
    """The names of the numbers in which the two differ."""
    arguments = (*QUIET, *LARGER, *extra)
    train(folder, *arguments, f"trainer.max_steps={STOP}", name="stopped")
    stopped = train(folder, *arguments, f"trainer.max_steps={STEPS}", name="stopped")
    assert f"from step {STOP} to {STEPS}" in stopped.out
    whole = train(folder, *arguments, f"trainer.max_steps={STEPS}", name="whole")
    return differing(trained(stopped), trained(whole))


def test_deterministic_runs_agree_bitwise(tmp_path, device, record_property):
    names = stopped_and_whole(tmp_path, *options(device, benchmark=False), "trainer.deterministic=true")
    record_property("differing tensors", len(names))
    assert names == []


def test_how_far_the_defaults_agree(tmp_path, device, record_property):
    """Nothing is promised of them: `conf/trainer/gpu.yaml` says so."""
    names = stopped_and_whole(tmp_path, *options(device))
    record_property("bitwise", not names)
    record_property("differing tensors", len(names))
