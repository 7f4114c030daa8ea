"""Reading a table that somebody made by hand: csv or jsonl, with the line of every complaint."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from store.errors import InputError

CSV_SUFFIXES = (".csv",)
JSONL_SUFFIXES = (".jsonl", ".ndjson")


class Row(NamedTuple):
    """One row of a table: the line on which it begins and its values by column."""

    line: int
    values: dict[str, str]


def read_rows(table: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
    """The rows of a csv or jsonl with at least the columns `needed`.

    A byte order mark and any line ends are fine, blank lines are skipped. A jsonl keeps only `needed` and
    `optional`, since other keys may hold anything. Raises InputError, with the line.
    """
    suffix = table.suffix.lower()
    if suffix not in CSV_SUFFIXES + JSONL_SUFFIXES:
        raise InputError(f"{table}: expected a name that ends in .csv or .jsonl")
    text = read_text(table)
    if suffix in CSV_SUFFIXES:
        rows = list(csv_rows(table, text, needed))
    else:
        rows = list(jsonl_rows(table, text, needed, optional))
    if not rows:
        raise InputError(f"{table}: the table has no rows; it needs {', '.join(needed)} in each")
    return rows


def read_text(table: Path) -> str:
    """The file as text; raises InputError with the line of the first byte that is none."""
    content = table.read_bytes()
    if b"\0" in content:
        raise InputError(
            f"{table}:{line_at(content, content.index(0))}: a NUL byte; save the table as UTF-8 text"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = line_at(content, error.start)
        raise InputError(f"{table}:{line}: not UTF-8; save the table as UTF-8 text") from error


def line_at(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1


def csv_rows(table: Path, text: str, needed: Sequence[str]) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{table}:{line}: not csv ({error})") from error
        if fields is None:
            return
        begins, line = line, reader.line_num + 1
        if not fields:
            continue
        if header is None:
            header = [name.strip() for name in fields]
            check_columns(f"{table}:{begins}", header, needed)
        elif len(fields) != len(header):
            raise InputError(
                f"{table}:{begins}: {len(fields)} fields, the header has {len(header)}; "
                "put a text with a comma in double quotes"
            )
        else:
            yield Row(begins, dict(zip(header, fields, strict=True)))


def check_columns(where: str, header: Sequence[str], needed: Sequence[str]) -> None:
    has = ", ".join(repr(name) for name in header)
    missing = [name for name in needed if name not in header]
    if missing:
        raise InputError(f"{where}: the column {missing[0]!r} is missing; the table has {has}")
    if len(set(header)) != len(header):
        raise InputError(f"{where}: a column comes twice among {has}; keep one")


def jsonl_rows(table: Path, text: str, needed: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{table}:{number}"
        try:
            values = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{where}: not a line of JSON ({error})") from error
        if not isinstance(values, dict):
            raise InputError(
                f'{where}: expected an object such as {{"video": ...}}, got {type(values).__name__}'
            )
        check_columns(where, list(values), needed)
        kept = [name for name in (*needed, *optional) if name in values]
        yield Row(number, {name: as_text(where, name, values[name]) for name in kept})


def as_text(where: str, name: str, value: object) -> str:
    """A JSON value as a csv would hold it; a list or an object has no such form."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(
            f"{where}: {name!r} is {json.dumps(value)[:60]}, expected a string; write one row a caption"
        )
    text = str(value)
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(
            f"{where}: {name!r} holds a NUL or half of a character (an escape that is no letter)"
        )
    return text
