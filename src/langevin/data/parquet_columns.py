"""Which columns of a Parquet file hold images, labels and captions, as Hugging Face's datasets writes them."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from langevin.errors import UserError
from langevin.visible import visible

AUTO = "auto"
_SHOWN = 12  # columns that a message names
_IMAGES = "a struct {bytes, path}, or bytes"
_BYTES = "bytes"  # the field of a column of images that has their files


class Columns(NamedTuple):
    """What the columns are called.

    Attributes:
        image: of the images.
        label: of their class ids; None without.
        caption: of their captions; None without.
    """

    image: str
    label: str | None
    caption: str | None


def find_columns(schema: Any, wanted: Columns, file: str, names_allowed: bool = False) -> Columns:
    """The columns that are meant by their names, or by `AUTO`, which finds those of images and class ids.

    Args:
        schema: of the file, a `pyarrow.Schema`.
        wanted: as the user gives them.
        file: how messages refer to it.
        names_allowed: whether labels may be the names of classes in place of their ids.

    Raises:
        UserError: when one is not there, of another type, or `AUTO` finds several.
    """
    from pyarrow import types

    images = [field.name for field in schema if _is_image(_plain(field.type))]
    labels = [name for name in schema.names if name == "label"]
    image = _chosen(schema, "image", wanted.image, "Image", images, file)
    label = None if wanted.label is None else _chosen(schema, "label", wanted.label, "ClassLabel", labels, file)
    caption = None if wanted.caption is None else _named(schema, "caption", wanted.caption, file)
    if image is None:
        raise UserError(f"data.image={AUTO}: {file} has no column of images, {_IMAGES}; {_described(schema)}")
    of_label, of_caption = "whole numbers, or data.label=null for no classes", "a text, or a list of texts"
    for option, name, fits, allowed in (
        ("image", image, _is_image, _IMAGES),
        ("label", label, lambda type_: types.is_integer(type_) or (names_allowed and _is_string(type_)), of_label),
        ("caption", caption, _is_text, of_caption),
    ):
        if name is not None and not fits(_plain(type_ := _type_of(schema, name))):
            what = f"{file} has {_brief(type_)} there; allowed: {allowed}"
            raise UserError(f"data.{option}={visible(name)}: {what}; {_described(schema)}")
    return Columns(image, label, caption)


def leaf_of(schema: Any, image: str) -> str:
    """Where Parquet has the files of a column of images."""
    from pyarrow import types

    return f"{image}.{_BYTES}" if types.is_struct(_type_of(schema, image)) else image


def holds_names(schema: Any, label: str) -> bool:
    """Whether a column of labels has the names of classes in place of their ids."""
    return _is_string(_plain(_type_of(schema, label)))


def class_names_of(schema: Any, label: str) -> tuple[str, ...]:
    """The names of the class ids of a column from 0 up; none where the schema has none.

    Raises:
        ValueError: when they are not as datasets writes them.
    """
    names = _features(schema).get(label, {}).get("names")
    if names is None:
        return ()
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"its metadata have no names of the classes of {visible(label)}, but {_brief(names)}")
    return tuple(names)


def _named(schema: Any, option: str, name: str, file: str) -> str:
    """The column that an option names."""
    if schema.names.count(name) != 1:
        raise UserError(f"data.{option}={visible(name)}: {file} has no such column; {_described(schema)}")
    return name


def _chosen(schema: Any, option: str, name: str, kind: str, others: list[str], file: str) -> str | None:
    """The column that an option names; for `AUTO` the only one of a kind of feature, else the only one of others.

    Of several it is the one that is called as the option is; of none, None.
    """
    if name != AUTO:
        return _named(schema, option, name, file)
    features = _features(schema)
    found = [each for each in schema.names if features.get(each, {}).get("_type") == kind] or others
    if option in found:
        return _named(schema, option, option, file)
    if len(found) > 1:
        several = " and ".join(map(visible, found[:_SHOWN]))
        raise UserError(f"data.{option}={AUTO}: {file} has {several}; choose one, data.{option}=COLUMN")
    return found[0] if found else None


def _features(schema: Any) -> Mapping[str, Mapping[str, Any]]:
    """What datasets has noted of each column; nothing where another program has written the file."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: of for name, of in features.items() if isinstance(of, Mapping)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _type_of(schema: Any, name: str) -> Any:
    """The type of a column, of which there is one, where others may have one name."""
    return next(field.type for field in schema if field.name == name)


def _plain(type_: Any) -> Any:
    """The type of the values of a column, whether they are stored by a dictionary or not."""
    from pyarrow import types

    return type_.value_type if types.is_dictionary(type_) else type_


def _is_image(type_: Any) -> bool:
    from pyarrow import types

    if types.is_struct(type_):
        fields = [type_.field(place) for place in range(type_.num_fields)]
        return any(field.name == _BYTES and _is_bytes(field.type) for field in fields)
    return _is_bytes(type_)


def _is_bytes(type_: Any) -> bool:
    from pyarrow import types

    return types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_)


def _is_text(type_: Any) -> bool:
    from pyarrow import types

    return _is_string(type_.value_type if types.is_list(type_) or types.is_large_list(type_) else type_)


def _is_string(type_: Any) -> bool:
    from pyarrow import types

    return types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_)


def _described(schema: Any) -> str:
    columns = [f"{visible(field.name)} ({_brief(field.type)})" for field in list(schema)[:_SHOWN]]
    return f"its columns are {', '.join(columns)}" + ", ..." * (len(schema) > _SHOWN)


def _brief(value: Any) -> str:
    text = visible(str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
