"""Many rows for one UPDATE of PostgreSQL: each column as an array, in the form in which the server keeps its values.

Whatever is in a text, nothing of it has to be quoted here nor looked for there: a value is its length and its bytes.
Names a dialect, as `store/database.py` does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEADER: Final = struct.Struct(">iiIii")  # dimensions, whether there are nulls, type of an element, how many, from 1 on
_LENGTH: Final = struct.Struct(">i").pack
_NULL: Final = _LENGTH(-1)


class Element(NamedTuple):
    """A type of the elements of an array."""

    oid: int  # of PostgreSQL's, which never change
    pack: Callable[[Sequence[Any]], bytes]


def _texts(values: Sequence[str | None]) -> bytes:
    return b"".join([_NULL if value is None else _LENGTH(len(data := value.encode())) + data for value in values])


def _numbers(code: str) -> Callable[[Sequence[Any]], bytes]:
    packer = struct.Struct(f">i{code}")
    size, pack = packer.size - len(_NULL), packer.pack
    return lambda values: b"".join([_NULL if value is None else pack(size, value) for value in values])


#: By their names in SQL.
ELEMENTS: Final = {
    "TEXT": Element(25, _texts),
    "JSON": Element(114, _texts),
    "INTEGER": Element(23, _numbers("i")),
    "BIGINT": Element(20, _numbers("q")),
    "DOUBLE PRECISION": Element(701, _numbers("d")),
    "BOOLEAN": Element(16, _numbers("?")),
}


class Bulk(NamedTuple):
    """A statement for many rows."""

    text: str  #: with a numbered parameter for each column, an array, and one for how many rows there are
    elements: tuple[Element, ...]  #: of these arrays

    def parameters(self, rows: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return the parameters for `rows`. Raises where a value is none of its column's."""
        columns = zip(*rows, strict=True)
        arrays = [
            Array(_HEADER.pack(1, 1, element.oid, len(rows), 1) + element.pack(column))
            for element, column in zip(self.elements, columns, strict=True)
        ]
        return [*arrays, len(rows)]


class Array(bytes):
    """An array for the server, whose type the statement names."""


class _AsItIs(Dumper):
    format = Format.BINARY
    oid = 0

    def dump(self, obj: Array) -> bytes:
        return obj


def take_arrays(session: psycopg.Connection[Any]) -> None:
    """Let the cursors that a session makes from now on take an `Array`."""
    session.adapters.register_dumper(Array, _AsItIs)
    if session.info.encoding != "utf-8":  # a database may keep its text otherwise; the server translates
        session.execute("SET client_encoding = 'UTF8'")
