"""A cache from a stranger is only data: what its names, its JSON, its files and its strings may be.

Whoever reads a cache asks here before believing it: no name leads out of the cache, no document makes
Python allocate more than its size warrants, no link or pipe is followed, no string moves the cursor.
"""

from __future__ import annotations

import json
import os
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from store.errors import DamagedCacheError

JSON_VALUES = 1_000_000
JSON_DEPTH = 32
SHOWN_LETTERS = 1000
FILE, FOLDER, NEITHER = "file", "folder", "neither"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PATH_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def is_path_name(name: object) -> bool:
    """Whether `name` can name a file or folder of a cache: letters, digits, '_', and inside '-' and '.'."""
    return isinstance(name, str) and _PATH_NAME.fullmatch(name) is not None


def is_plain_path(path: object) -> bool:
    """Whether `path` is relative, posix, made of plain names, and so can't leave its folder."""
    return isinstance(path, str) and len(path) < 1000 and all(map(is_path_name, path.split("/")))


def is_url(text: str) -> bool:
    """Whether `text` is a URL, as `s3://bucket/name`, and no file's name."""
    return _URL.match(text) is not None


def parse_json(content: bytes) -> Any:
    """The JSON value in `content`, UTF-8.

    Raises ValueError beyond what a cache needs: over JSON_VALUES values (so memory is at most some
    hundred bytes a value), nesting over JSON_DEPTH, NaN, infinity, integers beyond int64, a key
    twice in one object, half a surrogate pair.
    """
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > JSON_VALUES:
        raise ValueError(f"it holds more than {JSON_VALUES:,} values")
    try:
        value = _DECODER.decode(content.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"it is nested more than {JSON_DEPTH} deep") from None
    _require_plain(value)
    return value


def _whole_number(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"number {digits[:20]} is beyond 64 bits")
    return int(digits)


def _finite_number(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"number {digits[:20]} is beyond 64 bits")
    return number


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice in one object")
    return found


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_whole_number,
    parse_float=_finite_number,
    parse_constant=_refuse_constant,
)


def _require_plain(value: Any) -> None:
    """Raise ValueError for nesting over JSON_DEPTH or a string that UTF-8 can't spell."""
    level = [value]
    for _ in range(JSON_DEPTH):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, str):
                item.encode()
            elif isinstance(item, dict):
                deeper.extend(item)
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
        if not deeper:
            return
        level = deeper
    raise ValueError(f"it is nested more than {JSON_DEPTH} deep")


def exact_fields(cls: type, found: Any, what: str) -> dict[str, Any]:
    """`found`, if it is an object with exactly the fields of the dataclass `cls`, each of its type.

    int, float, str and bool are held to (True is no int, 1 is a float); other annotations are the
    caller's to check. Raises DamagedCacheError naming the field.
    """
    names = _hints(cls).keys()
    if not isinstance(found, dict) or found.keys() != names:
        told = sorted(found) if isinstance(found, dict) else type(found).__name__
        raise DamagedCacheError(f"{what} has the fields {sorted(names)}, not {shown(told)}; pull it again")
    return known_fields(cls, found, what)


def known_fields(cls: type, found: Any, what: str) -> dict[str, Any]:
    """`found`, if it is an object with fields of the dataclass `cls` only; types as in `exact_fields`."""
    hints = _hints(cls)
    if not isinstance(found, dict) or not found.keys() <= hints.keys():
        told = sorted(found) if isinstance(found, dict) else type(found).__name__
        raise DamagedCacheError(f"{what} has the fields {sorted(hints)}, not {shown(told)}; pull it again")
    for name in found:
        if hints[name] in (int, float, str, bool) and not is_of(found[name], hints[name]):
            raise DamagedCacheError(
                f"{what}: {name} is of type {hints[name].__name__}, not {shown(found[name])}; pull it again"
            )
    return found


@cache
def _hints(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, resolved; slow to find, and asked for every record."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def is_of(value: Any, kind: type) -> bool:
    """Whether a JSON value is of type `kind`: True is no int, an int counts as a float."""
    return type(value) is kind or (kind is float and type(value) is int)


def is_count(value: Any, limit: int = 2**47) -> bool:
    """Whether `value` is a whole number from 0 to `limit`."""
    return type(value) is int and 0 <= value <= limit


def shown(value: Any) -> str:
    """The repr of `value`, cut to a length that fits in a message."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def printable(text: str, limit: int = SHOWN_LETTERS) -> str:
    """`text` on one line with whatever a terminal would obey (escapes, direction marks) spelled out."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in cut
    )


def printable_values(value: Any) -> Any:
    """`value`, plain JSON, with every string in it made printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(key): printable_values(inner) for key, inner in value.items()}
    return [printable_values(inner) for inner in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Entry:
    """One entry below a cache's root, by posix path; NEITHER is a link, a pipe, a device."""

    path: str
    kind: str
    bytes: int = 0


def entries(root: Path) -> Iterator[Entry]:
    """Everything below `root`, in no order, links not followed; what vanishes meanwhile is left out."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as listing:
                for entry in listing:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                        yield Entry(path, FOLDER)
                    elif entry.is_file(follow_symlinks=False):
                        yield Entry(path, FILE, entry.stat(follow_symlinks=False).st_size)
                    else:
                        yield Entry(path, NEITHER)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DamagedCacheError(f"{printable(folder)}: {error.strerror}; pull the cache again") from None


def require_plain_tree(root: Path) -> None:
    """Raise DamagedCacheError, naming it, for the first entry below `root` that is no file and no folder.

    A link could lead a reader, or a writer that resumes, out of the cache; a pipe never ends.
    """
    for entry in entries(root):
        if entry.kind == NEITHER:
            raise DamagedCacheError(
                f"{printable(entry.path)} in {root.name} is a link or a device; "
                "a cache has plain files only, pull it again"
            )
