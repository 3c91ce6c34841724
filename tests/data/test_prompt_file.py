import re

import pytest

from langevin.data.prompt_file import is_prompt_file, read_prompts
from langevin.errors import UserError

TEXT = "a red car\r\n  日本の車 🚗 \n\u2028 is no end of a line\n\n"
JSON = '"a"\n{"prompt": "b", "text": "no"}\n{"file_name": "x.png", "text": "c"}\n'


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", TEXT.encode(), ["a red car", "日本の車 🚗", "is no end of a line"]),
        ("a.TXT", b"\xef\xbb\xbfof Windows", ["of Windows"]),
        ("a.jsonl", JSON.encode(), ["a", "b", "c"]),
    ],
)
def test_a_line_is_a_prompt(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert is_prompt_file(name)
    assert read_prompts(str(tmp_path / name), "prompt") == expected


def test_a_text_is_no_file():
    assert not any(map(is_prompt_file, ("a red car", "a.png", "txt", "")))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.txt", None, "cannot be read (No such file or directory)"),
        ("folder.txt", "folder", "cannot be read (Is a directory)"),
        ("a.txt", b"", "holds no prompts; allowed: one a line, at least one"),
        ("a.txt", b" \n\n", "holds no prompts"),
        ("a.txt", "dürftig".encode("latin-1"), "is not UTF-8 (byte 1 of it is none); save it as UTF-8"),
        ("a.txt", b"a\n\nb\n", "line 2 holds none; allowed: a prompt, which is not empty"),
        ("a.jsonl", b'"a"\n{"caption": "b"}', 'line 2 holds none; allowed: a text, or an object with "prompt", a text'),
        ("a.jsonl", b"a", "line 1 holds none"),
        ("a.jsonl", b'{"prompt": ["a"]}', "line 1 holds none"),
    ],
)
def test_a_mistake_is_named(tmp_path, name, content, words):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"prompt={path}: {words}")):
        read_prompts(str(path), "prompt")
