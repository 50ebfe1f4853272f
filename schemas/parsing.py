"""A dataclass from JSON: every field of the type it is declared with, or a line that says which isn't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

_MOST = 2**63 - 1
_EXPECTED = {"int": "a count", "str": "a text", "Sequence": "a list", "Mapping": "an object"}


def parsed(cls: Any, found: Any, what: str, parts: Sequence[type] = ()) -> Any:
    """A `cls` of what JSON holds, `what` in errors; fields it doesn't know are left out. Raises ValueError.

    A field is an int of 0 or more, a str, Any, one of `parts`, or a Sequence or Mapping of these; one that may be None
    may be missing.
    """
    if not isinstance(found, dict):
        raise ValueError(f"expected {what} as an object, found {shown(found)}")
    values = {}
    for one in fields(cls):
        if one.name in found:
            values[one.name] = _value(str(one.type), found[one.name], f"{one.name} of {what}", parts)
        elif one.default is MISSING and one.default_factory is MISSING:
            raise ValueError(f"expected {one.name} of {what}, found none")
    return cls(**values)


def count_of(found: Any, what: str) -> int:
    """A whole number of 0 or more. Raises ValueError."""
    if type(found) is int and 0 <= found <= _MOST:
        return found
    raise ValueError(f"expected {_EXPECTED['int']} for {what}, found {shown(found)}")


def shown(found: Any) -> str:
    return repr(found) if len(repr(found)) < 50 else f"{repr(found)[:50]} …"


def _value(kind: str, found: Any, what: str, parts: Sequence[type]) -> Any:
    kind = kind.removesuffix(" | None")
    for part in parts:
        if kind == part.__name__:
            return parsed(part, found, what, parts)
    outer, _, inner = kind.removesuffix("]").partition("[")
    if outer == "Sequence" and isinstance(found, list):
        return [_value(inner, one, f"{what}, {i:,}", parts) for i, one in enumerate(found)]
    if outer == "Mapping" and isinstance(found, dict):
        return {name: _value(inner.partition(", ")[2], one, f"{what}, {name}", parts) for name, one in found.items()}
    if kind == "int":
        return count_of(found, what)
    if kind == "Any" or (kind == "str" and isinstance(found, str)):
        return found
    raise ValueError(f"expected {_EXPECTED.get(outer, outer)} for {what}, found {shown(found)}")
