"""The comparison of two checkouts, of this one with itself."""

import re

import pytest
from experiments.speed.versions import HERE, Version, in_turns, main, row

TINY = ["model.channels=32", "model.channel_multipliers=[1]", "batch_size=4", "data=digits", "trainer=cpu"]


def test_the_ratio_is_within_each_round():
    assert row("x", {"here": [1.0, 4.0, 9.0], "there": [2.0, 4.0, 3.0]}, "s") == (
        "| x | 4.000 s | 3.000 s | 1.000 (0.500 to 3.000) |"
    )


def test_each_is_the_first_in_turn_and_the_warm_up_does_not_count():
    order = []
    found = in_turns({name: lambda n, name=name: order.append(name) or n for name in "ab"}, 1, 2)
    assert found == {"a": [1, 2], "b": [1, 2]}
    assert "".join(order) == "baabba"


@pytest.mark.slow
def test_a_version_and_itself(capsys):
    options = ["--rounds=3", "--warm-up=0", "--commands=1", "--sample=num_samples=2 sampler=ddim sampler.steps=2"]
    main([str(HERE), *options, *TINY])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split(" | ")[0].partition(",")[0] for line in lines] == [
        *["| command to the end of the first step"] * 2,
        "| a step of training",
        *["| command that samples"] * 2,
    ]
    for line in lines:
        here, there, ratio = (float(number) for number in re.findall(r"\d+\.\d+", line)[:3])
        assert min(here, there) > 0
        if "memory" in line:  # what takes how long is not a test's business
            assert ratio == pytest.approx(here / there, abs=5e-3)
            assert ratio == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_a_command_that_fails_is_reported(tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)failed in .*model\.chanels: no such option"):
        Version(HERE, ["model.chanels=3"], tmp_path).first_step(0)
