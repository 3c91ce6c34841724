import ast
import math

import pytest

from langevin.config.types import describe, fits

COMPONENT = {"_target_": "some.Class", "a": 1}


def annotation(text):
    return None if text is None else ast.parse(text, mode="eval").body


# What fits, what does not, and the message.
TABLE = {
    "int": ([0, -3, 10**20], [True, 1.0, "1", None, [1], {}], "a whole number"),
    "float": ([0, -3, 1.5, math.inf], [math.nan, True, "1.5", None, [1.0]], "a number"),
    "bool": ([True, False], [0, 1, "true", None], "true or false"),
    "str": (["", "a"], [1, True, None, ["a"]], "a text"),
    "Path": (["a/b"], [1, None], "a path"),
    "pathlib.Path": (["a/b"], [1, None], "a path"),
    "None": ([None], [0, "", False], "null"),
    "int | None": ([3, None], ["3", 3.0, True], "a whole number or null"),
    "Optional[int]": ([3, None], ["3", True], "a whole number or null"),
    "typing.Optional[str]": (["a", None], [3], "a text or null"),
    "int | str | None": ([3, "3", None], [3.5, [3]], "a whole number or a text or null"),
    "Union[int, str]": ([3, "3"], [None, 3.5], "a whole number or a text"),
    "Literal['min', 'max']": (["min", "max"], ["Min", None, 0], "one of min, max"),
    "Literal[1, 3]": ([1, 3], [2, "1", True, 1.0], "one of 1, 3"),
    "typing.Literal['a'] | None": (["a", None], ["b"], "one of a or null"),
    "list": ([[], [1, "a"]], [None, "ab", {}], "a list"),
    "list[int]": ([[], [1, 2]], [[1, "2"], [1.5], [True], 1, None, {"0": 1}], "a list, each item a whole number"),
    "Sequence[str]": ([["a"]], ["a", [1]], "a list, each item a text"),
    "collections.abc.Sequence[float]": ([[1, 2.5]], [1, ["1"]], "a list, each item a number"),
    "list[list[int]]": ([[[1], []]], [[1]], "a list, each item a list, each item a whole number"),
    "list[int | None]": ([[1, None]], [["a"]], "a list, each item a whole number or null"),
    "tuple[float, float]": ([[0.9, 0.999]], [[0.9], [1, 2, 3], ["a", 1], 0.9], "a list of a number, a number"),
    "tuple[int, ...]": ([[], [1, 2, 3]], [["a"], 1], "a list, each item a whole number"),
    "dict[str, int]": ([{}, {"a": 1}], [{"a": "1"}, [1], None], "a mapping, each value a whole number"),
    "Mapping": ([{}, {"a": "b"}], [[], "a"], None),
    "Any": ([1, "a", None, [], {}], [], None),
    "'int'": ([3], ["3"], "a whole number"),
    "'int | None'": ([3, None], ["3"], "a whole number or null"),
    "Sampler": ([COMPONENT], ["ddim", 3, None, {}, {"steps": 3}], "a component (Sampler) with a _target_"),
    "nn.Module | None": ([COMPONENT, None], ["unet"], "a component (Module) with a _target_ or null"),
    "Callable[..., Condition]": ([COMPONENT], ["x", {}], "a component (Callable) with a _target_"),
    "list[Block]": ([[COMPONENT]], [["a"], [{}]], "a list, each item a component (Block) with a _target_"),
    "Annotated[int, Ge(1)]": ([1, 7], [0, -1, 1.5, "2", None], "a whole number, at least 1"),
    "Annotated[float, Gt(0)] | None": ([0.1, None], [0, -1.0], "a number, above 0 or null"),
    "typing.Annotated[float, Ge(0), Lt(1)]": ([0, 0.5], [1, -0.1], "a number, at least 0, below 1"),
    "Annotated[int, Le(le=-2)]": ([-2, -3], [-1], "a whole number, at most -2"),
    None: ([1, "a", None, []], [], "anything"),
}


def cases(kind):
    return [(text, value) for text, row in TABLE.items() for value in row[kind]]


@pytest.mark.parametrize(("text", "value"), cases(0))
def test_fits(text, value):
    assert fits(value, annotation(text))


@pytest.mark.parametrize(("text", "value"), cases(1))
def test_does_not_fit(text, value):
    assert not fits(value, annotation(text))


@pytest.mark.parametrize(("text", "words"), [(text, row[2]) for text, row in TABLE.items() if row[2] is not None])
def test_is_described(text, words):
    assert describe(annotation(text)) == words
