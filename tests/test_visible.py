import pytest

from langevin.visible import visible, visible_lines


@pytest.mark.parametrize("text", ["", "cosine-seed0", "dü 学习 été", "a b|c", r"back\\slash"])
def test_what_is_printable_stays(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b31m", r"\x9b31m"),  # C1
        ("\x7f\x00\r\t", r"\x7f\x00\r\t"),
        ("a\nb", r"a\nb"),
        ("\u202e\u2066\u200b\u2028", r"\u202e\u2066\u200b\u2028"),
        ("\udcff", r"\udcff"),  # a byte of a file name that is no text
    ],
)
def test_what_is_not_stands_as_repr_writes_it(text, shown):
    assert visible(text) == shown


def test_lines_stay_lines():
    assert visible_lines("error: \x1b\n  b\r") == "error: \\x1b\n  b\\r"
