"""Every formulation trains along its recorded loss curve."""

import json

import pytest

from goldens.curves import CASES, COLUMNS, CURVES, differences, record

# Of a column's largest value. With the instructions of the oldest CPUs (ATEN_CPU_CAPABILITY=default,
# ONEDNN_MAX_CPU_ISA=SSE41, MKL_CBWR=COMPATIBLE) instead of AVX-512 the curves differed by up to 1.5e-6, most by 1.3e-7.
TOLERANCE = 2e-5

RECORDED = json.loads(CURVES.read_text())
HOW = "record it: PYTHONPATH=tests python -m goldens.curves --only {} --out tests/goldens/curves.json"


def test_every_case_has_a_curve():
    missing, unknown = sorted(CASES.keys() - RECORDED.keys()), sorted(RECORDED.keys() - CASES.keys())
    assert not missing, f"no golden loss curve of {missing}; " + HOW.format(" ".join(missing))
    assert not unknown, f"a golden loss curve of {unknown}, which nothing trains; take it out of {CURVES.name}"


# The others train every day, too, in contracts/test_formulations.py.
EVERYDAY = ("ddpm", "edm", "flow")


@pytest.mark.parametrize(
    "name", [name if name in EVERYDAY else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_the_loss_curve_is_the_recorded_one(name):
    if name not in RECORDED:
        pytest.fail(f"no golden loss curve of {name}; " + HOW.format(name))
    curve = record(name)
    for column in COLUMNS:
        assert curve[column].keys() == RECORDED[name][column].keys()
        scale = max(map(abs, RECORDED[name][column].values()))
        assert curve[column] == pytest.approx(RECORDED[name][column], rel=0, abs=TOLERANCE * scale), column


def test_a_difference_in_the_last_bit_is_reported():
    curve = RECORDED["ddpm"]
    changed = {**curve, "val/loss": {**curve["val/loss"], "8": curve["val/loss"]["8"] * (1 + 1e-15)}}
    assert differences(curve, curve) == []
    (line,) = differences(changed, curve)
    assert line.startswith("val/loss: 1 steps, first 8: ")
