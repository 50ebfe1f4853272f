"""--where: a condition on the manifest's columns in the words of SQL's WHERE, answered by Arrow alone.

    condition   conditions joined by AND and OR, NOT before one, ( ) around one
    comparison  column = != <> < <= > >= value
                column [NOT] BETWEEN value AND value
                column [NOT] IN (value, …)
                column IS [NOT] NULL

A value is a number or a 'text', and is taken as the column's type holds it: 0.05 is the float32 next to it. What is
compared with null is neither true nor false, and not chosen, as in SQL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import UserError
from schemas.manifest import MANIFEST_SCHEMA

_TOKENS = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?!\w))|(?P<word>[^\W\d]\w*)"
    r"|(?P<sign><=|>=|<>|!=|==|[=<>(),])|(?P<end>$)|(?P<other>\S))"
)
_COMPARISONS = {
    "=": "equal",
    "==": "equal",
    "!=": "not_equal",
    "<>": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
_KEYWORDS = ("AND", "OR", "NOT", "IN", "IS", "NULL", "BETWEEN")
_UNKNOWN = pa.nulls(1, pa.bool_())[0]
_Truth = Callable[[pa.Table], Any]
"""Of each row true, false or null."""


class Where:
    """A condition. Raises UserError, in one line, for a text that is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.columns: list[str] = []
        """Those it asks about."""
        self._tokens = [
            (found.lastgroup or "", found[found.lastgroup or 0], found.start(found.lastgroup or 0))
            for found in _TOKENS.finditer(text)
        ]
        self._at = 0
        self._truth = self._disjunction()
        if self._tokens[self._at][0] != "end":
            self._refuse("AND, OR or the end")

    def filter(self, rows: pa.Table) -> pa.Table:
        """The rows that it chooses, of a table that has its columns."""
        return rows.filter(self._truth(rows))

    def _disjunction(self) -> _Truth:
        return self._joined("OR", self._conjunction, pc.or_kleene)

    def _conjunction(self) -> _Truth:
        return self._joined("AND", self._negation, pc.and_kleene)

    def _joined(self, word: str, part: Callable[[], _Truth], join: Callable[[Any, Any], Any]) -> _Truth:
        truth = part()
        while self._taken(word):
            truth = _both(truth, part(), join)
        return truth

    def _negation(self) -> _Truth:
        if self._taken("NOT"):
            return _not(self._negation())
        if self._taken("("):
            inner = self._disjunction()
            self._take(")")
            return inner
        return self._comparison()

    def _comparison(self) -> _Truth:
        kind, name, _ = self._tokens[self._at]
        if kind != "word" or name.upper() in _KEYWORDS:
            self._refuse("a column")
        if name not in MANIFEST_SCHEMA.names:
            self._refuse(f"a column of the manifest ({', '.join(MANIFEST_SCHEMA.names)})")
        self._at += 1
        if name not in self.columns:
            self.columns.append(name)
        if self._taken("IS"):
            is_not = self._taken("NOT")
            self._take("NULL")
            return lambda rows: (pc.is_valid if is_not else pc.is_null)(rows[name])
        negated = self._taken("NOT")
        if self._taken("BETWEEN"):
            low = self._value(name)[0]
            self._take("AND")
            high = self._value(name)[0]
            truth: _Truth = lambda rows: pc.and_kleene(  # noqa: E731
                pc.greater_equal(rows[name], low), pc.less_equal(rows[name], high)
            )
            return _not(truth) if negated else truth
        if self._taken("IN"):
            self._take("(")
            values = [self._value(name)]
            while self._taken(","):
                values.append(self._value(name))
            self._take(")")
            wanted = pa.concat_arrays(values)
            truth = lambda rows: pc.if_else(  # noqa: E731
                pc.is_valid(rows[name]), pc.is_in(rows[name], wanted), _UNKNOWN
            )
            return _not(truth) if negated else truth
        kind, sign, _ = self._tokens[self._at]
        if negated or sign not in _COMPARISONS:
            self._refuse("BETWEEN or IN" if negated else "a comparison: = != < <= > >=, BETWEEN, IN or IS")
        self._at += 1
        compare, value = getattr(pc, _COMPARISONS[sign]), self._value(name)[0]
        return lambda rows: compare(rows[name], value)

    def _value(self, column: str) -> pa.Array:
        """The next token as a value of the column's type, in an array of one."""
        kind, token, _ = self._tokens[self._at]
        dtype = MANIFEST_SCHEMA.field(column).type
        expected = "a text in '…'" if pa.types.is_string(dtype) else "a number"
        if kind != ("text" if pa.types.is_string(dtype) else "number"):
            self._refuse(f"{expected}, which {column} holds")
        text = token[1:-1].replace("''", "'") if kind == "text" else token.removeprefix("+")
        try:
            value = texts_of([text]).cast(dtype)
        except ValueError:  # Arrow's are among these
            self._refuse(f"a number that {dtype} holds, as {column} is")
        self._at += 1
        return value

    def _taken(self, word: str) -> bool:
        """Whether the next token is that word or sign, which is then behind us."""
        kind, token, _ = self._tokens[self._at]
        is_it = kind in ("word", "sign") and token.upper() == word
        self._at += is_it
        return is_it

    def _take(self, word: str) -> None:
        if not self._taken(word):
            self._refuse(word)

    def _refuse(self, expected: str) -> NoReturn:
        kind, token, at = self._tokens[self._at]
        found = "the end" if kind == "end" else token
        raise UserError(
            f"where {self.text}: expected {expected} at character {at + 1}, found {found}; for instance "
            "\"writer < '1100' AND ink_fraction > 0.05\""
        )


def texts_of(texts: Sequence[str]) -> pa.StringArray:
    """What pa.array makes, which imports pandas where that is installed: a second."""
    parts = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, parts)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(parts), pa.py_buffer(ends), pa.py_buffer(b"".join(parts)))


def _not(truth: _Truth) -> _Truth:
    return lambda rows: pc.invert(truth(rows))


def _both(first: _Truth, second: _Truth, join: Callable[[Any, Any], Any]) -> _Truth:
    return lambda rows: join(first(rows), second(rows))
