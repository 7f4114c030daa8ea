"""Reading annotation files as they are published: JSON, csv, lists and separated lines, with the place of
every complaint. A byte order mark and any line ends are fine; what is not UTF-8 is refused with its line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from store.errors import InputError
from store.inputs.table_file import csv_rows, read_text

Value = TypeVar("Value")
SHOWN_LETTERS = 60
CONTROL_OR_HALF = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
JSON_WORDS = {dict: "an object", list: "a list", str: "a string", int: "a whole number"}


class Line(NamedTuple):
    """The fields of one line of a file; where: file:line, for a message."""

    where: str
    fields: list[str]


def tidy(text: str) -> str:
    """`text` without outer spaces, every inner run of white space one space, as CLIP's and BERT's tokenizers
    see it."""
    return " ".join(text.split())


def check_id(where: str, id: object) -> str:
    """`id` if it can name a file; raises InputError for what is no string, is empty, or holds a path's parts.

    Leading dashes, dots, underscores and any other letters are fine: real ids have them.
    """
    if not isinstance(id, str) or not id.strip(". ") or "/" in id or "\\" in id or CONTROL_OR_HALF.search(id):
        raise InputError(
            f"{where}: {shorten(id)} is no id; expected the name of a file without any folder. "
            "Restore the published file"
        )
    return id


def shorten(value: object) -> str:
    """`value` for a message."""
    shown = repr(value)
    return shown if len(shown) <= SHOWN_LETTERS else shown[:SHOWN_LETTERS] + "..."


def read_json(path: Path, expected: str) -> Any:
    """The document in `path`; `expected` says in words what it should hold, for the message.

    Raises InputError, with the line, for what is not JSON, and for a key that an object holds twice.
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg}); expected {expected}") from error
    except (_DuplicateKeyError, RecursionError) as error:
        raise InputError(f"{path}: {error}; expected {expected}") from error


class _DuplicateKeyError(ValueError):
    """An object holds a key twice."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _DuplicateKeyError(f"the key {shorten(twice)} comes twice in one object")
    return found


def expect(where: str, value: object, kind: type[Value]) -> Value:
    """`value` if it is of the JSON type `kind`; raises InputError naming `where` otherwise."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(
            f"{where}: expected {JSON_WORDS[kind]}, got {shorten(value)}; is it the published file?"
        )
    return value


def field(where: str, item: object, name: str, kind: type[Value]) -> Value:
    """The entry `name` of the JSON object `item`, of the type `kind`; raises InputError naming `where`."""
    entries: Mapping[str, object] = expect(where, item, dict)
    if name not in entries:
        has = ", ".join(map(repr, list(entries)[:8])) or "nothing"
        raise InputError(f"{where}: the key {name!r} is missing, there is {has}; is it the published file?")
    return expect(f"{where}, {name!r}", entries[name], kind)


def string_list(where: str, value: object) -> list[str]:
    """`value` if it is a list of strings; raises InputError naming `where` otherwise."""
    return [expect(f"{where}, entry {at}", entry, str) for at, entry in enumerate(expect(where, value, list))]


def table_rows(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """(file:line, values without outer spaces) of each row of a csv with a header that has `columns`, none
    empty."""
    rows = []
    for line, values in csv_rows(path, read_text(path), columns):
        where = f"{path}:{line}"
        kept = {column: values[column].strip() for column in columns}
        if empty := [column for column, value in kept.items() if not value]:
            raise InputError(f"{where}: {empty[0]} is empty; restore the published file")
        rows.append((where, kept))
    if not rows:
        raise InputError(f"{path}: no rows; it needs {', '.join(columns)} in each")
    return rows


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """(file:line, line without outer white space) of every line that is not blank."""
    text = read_text(path)
    start = number = 0
    while start < len(text):  # no list of all lines: some files have millions
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        number += 1
        if stripped := text[start:end].strip():
            yield f"{path}:{number}", stripped
        start = end + 1


def separated_lines(path: Path, separator: str | None, names: Sequence[str]) -> Iterator[Line]:
    """The lines of a file without header or quotes, each with the fields `names`; the last may hold
    `separator`.

    separator: None is any white space, counted from the right, so that the first field may hold some.
    Raises InputError, with the line, for a line of fewer fields or with an empty one, and for an empty file.
    """
    empty = True
    cuts = len(names) - 1
    for where, line in lines(path):
        parts = line.rsplit(None, cuts) if separator is None else line.split(separator, cuts)
        fields = [part.strip() for part in parts]
        if len(fields) != len(names) or not fields[0] or not fields[-1]:
            mark = {None: "a space", "\t": "a tab"}.get(separator, repr(separator))
            raise InputError(
                f"{where}: expected {', '.join(names)} separated by {mark}, got {shorten(line)}; "
                "restore the published file"
            )
        empty = False
        yield Line(where, fields)
    if empty:
        raise InputError(f"{path}: the file is empty; expected {', '.join(names)} in each line")


def id_list(path: Path) -> list[str]:
    """The ids of a list, one a line, none twice."""
    found: dict[str, str] = {}
    for where, id in lines(path):
        check_id(where, id)
        if id in found:
            raise InputError(f"{where}: {id!r} stands in {found[id]} already; keep one")
        found[id] = where
    if not found:
        raise InputError(f"{path}: the list is empty; expected one id a line")
    return list(found)
