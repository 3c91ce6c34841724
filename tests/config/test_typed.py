"""Slips on the command line, all at once; and what is none."""

import pytest

from langevin.config.typed import refuse_slips
from langevin.config.validate import groups_of
from langevin.errors import UserError

OWN = groups_of("train")


def slips(*arguments, sweeps=False, names=("batch_size",)):
    try:
        refuse_slips(arguments, OWN, names, sweeps)
    except UserError as error:
        return str(error).splitlines()
    return []


def test_all_are_reported_at_once():
    found = slips("schedule=cosin", "metrics=[fid,kidd]", "seed", "--verbose", "data=digits", "optimizer.lr=1,2")
    assert found[0] == "5 mistakes on the command line:"
    assert [line.partition(": ")[0].strip() for line in found[1:]] == [
        *("schedule=cosin", "metrics=kidd", "seed", "--verbose", "optimizer.lr=1,2")
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--cfg", "job", "--resolve", "seed=1"),
        ("-c=job",),
        ("--info", "seed=1"),
        ("~guidance", "+data.extra=1", "++seed=2", "experiment=null", "metrics=[]", "callbacks=[default,divergence]"),
        ("data.path='a,b'", "hydra/launcher=slurm", "data@validation=digits"),
    ],
)
def test_what_hydra_takes_is_none(arguments):
    assert slips(*arguments) == []


def test_a_sweep_is_one_where_it_is_asked_for():
    assert slips("schedule=linear,cosine", "metrics=[fid],[fid,kid]", "seed=range(3)", sweeps=True) == []
    (found,) = slips("schedule=linear,cosin", sweeps=True)
    assert found.startswith("schedule=cosin: no such option (did you mean cosine?)")


def test_parts_of_ones_own_folder_are_known(tmp_path):
    (tmp_path / "schedule").mkdir()
    (tmp_path / "schedule" / "own.yaml").write_text("_target_: own.Own\n")
    for flags in (["--config-dir", str(tmp_path)], [f"--config-dir={tmp_path}"], ["-cd", str(tmp_path)]):
        assert slips(*flags, "schedule=own") == []
        assert "did you mean own?" in slips(*flags, "schedule=owm")[0]


def test_a_place_alone_is_what_checkpoint_means():
    assert "such as checkpoint=outputs/run" in slips("outputs/run", names=("checkpoint", "seed"))[0]
