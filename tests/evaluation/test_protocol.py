import pytest

from langevin.config.identity import digest
from langevin.evaluation.protocol import of_value, protocol

MEASURED = {"num_samples": 5, "features": {"extractor": "tiny"}, "reference": {"sha256": "a", "number": 7}}
SETTINGS = {"fid": {"_target_": "F"}, "kid": {"_target_": "K", "subsets": 3}}
VALUES = {"fid": {"fid@5": 1.0}, "kid": {"kid@5": 0.1, "kid_std@5": 0.2}}


def record(samples=None):
    return protocol(MEASURED, samples, SETTINGS, VALUES)


def test_a_value_has_what_concerns_it_alone():
    fid, kid = of_value(record({"sampler": {"steps": 3}, "seed": 0}), "fid@5"), of_value(record(), "kid_std@5")
    assert fid["samples.sampler.steps"] == 3
    assert fid["features.extractor"] == "tiny"
    assert fid["metric._target_"] == "F"
    assert "metric.subsets" not in fid
    assert kid["metric.subsets"] == 3
    assert kid["samples"] is None
    with pytest.raises(KeyError):
        of_value(record(), "fid@6")


def test_an_option_that_was_added_tells_no_values_apart_that_were_made_before_it():
    spacing = {"_target_": "Leading"}
    before = of_value(record({"timestep_spacing": spacing, "labels": [1]}), "fid@5")
    added = {"offset": 0, "stop_at_first": False}
    assert of_value(record({"timestep_spacing": spacing | added, "labels": [1]}), "fid@5") == before
    moved = of_value(record({"timestep_spacing": spacing | added | {"offset": 1}, "labels": [1]}), "fid@5")
    assert moved == before | {"samples.timestep_spacing.offset": 1}


def test_values_may_differ_and_the_protocol_is_the_same():
    other = {"fid": {"fid@5": 2.0}, "kid": {"kid_std@5": 3, "kid@5": 4}}
    assert digest(protocol(MEASURED, None, SETTINGS, other)) == digest(record())


@pytest.mark.parametrize(
    "changed",
    [
        {"num_samples": 6},
        {"features": {"extractor": "other"}},
        {"reference": {"sha256": "b", "number": 7}},
    ],
)
def test_what_changes_a_value_changes_the_name(changed):
    assert digest(protocol({**MEASURED, **changed}, None, SETTINGS, VALUES)) != digest(record())
    assert digest(record({"seed": 0})) != digest(record({"seed": 1}))
    others = {**SETTINGS, "kid": {"_target_": "K", "subsets": 4}}
    assert digest(protocol(MEASURED, None, others, VALUES)) != digest(record())


def test_the_order_of_a_record_does_not_matter():
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert len(digest({}, 16)) == 16
