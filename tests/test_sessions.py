"""What a run's folder tells of who has worked on it."""

import json

import pytest
from helpers.commands import TINY, call

from langevin.sessions import FILE, session, sessions_of

pytestmark = pytest.mark.e2e


QUIET = (*(option for option in TINY if not option.startswith("callbacks")), "callbacks=[checkpoint]")


def test_a_run_notes_each_of_its_sessions(tmp_path):
    for steps in (2, 3):
        done = call("train", *QUIET, f"trainer.max_steps={steps}", f"output_dir={tmp_path}", "name=run")
        assert done.status == 0, done.err
    first, second = sessions_of(tmp_path / "run")
    assert [(each["from_step"], each["to_step"]) for each in (first, second)] == [(0, 2), (2, 3)]
    assert first["command"].startswith("langevin train ")
    assert " trainer.max_steps=2 " in first["command"]
    assert " 'model.channel_multipliers=[1]' " in first["command"]
    assert first["hardware"].startswith("1 x ")
    assert first["code"]
    assert 0 <= first["seconds"] < 100
    assert first["started"] <= second["started"]


def test_one_that_is_killed_has_no_end(tmp_path):
    context = session(tmp_path, lambda: 7, command="langevin train", hardware="1 x CPU", code="1")
    context.__enter__()
    (only,) = sessions_of(tmp_path)
    assert only["from_step"] == 7
    assert "seconds" not in only


def test_one_that_fails_has_an_end(tmp_path):
    with pytest.raises(RuntimeError), session(tmp_path, lambda: 7, command="", hardware="", code=""):
        raise RuntimeError
    assert sessions_of(tmp_path)[0]["to_step"] == 7


@pytest.mark.parametrize("content", ["", "[{", "{}", "[1, 2]", json.dumps("text")])
def test_a_damaged_file_tells_nothing(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    assert sessions_of(tmp_path) == []
