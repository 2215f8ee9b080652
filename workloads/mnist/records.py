"""What a file says, as a dataclass: the right fields, with values of the right types."""

from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def record(kind: type[Record], content: Any) -> Record:
    """A dataclass out of what a file says, `kind(**content)`, with every value checked against its field's type.

    Raises:
        TypeError: `content` has other fields, or values of other types.
    """
    if not isinstance(content, Mapping):
        raise TypeError(f"expected fields, found {type(content).__name__}")
    made = kind(**content)
    for name, expected in get_type_hints(kind).items():
        if not _fits(getattr(made, name), expected):
            raise TypeError(f"{name} is of another type")
    return made


def _fits(value: Any, expected: Any) -> bool:
    origin, inner = get_origin(expected), get_args(expected)
    if origin is UnionType:
        return any(_fits(value, one) for one in inner)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if expected in (int, float):  # whole numbers are numbers; True is none
        return isinstance(value, (int, expected)) and not isinstance(value, bool)
    return expected is Any or isinstance(value, expected)
