"""What makes two caches, two teachers or two views the same; comparing says which field differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from store.errors import IdentityError

NOTHING = "nothing"
PLUGIN = "teacher"
"""Field of a teacher's identity: which teacher it is, where the cache holds it under another name."""


def differences(expected: Any, found: Any, field: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(field, expected value, found value) for every leaf in which two plain-JSON values differ."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in sorted({*expected, *found}):
            path = f"{field}.{key}" if field else key
            yield from differences(expected.get(key, NOTHING), found.get(key, NOTHING), path)
    elif _are_alike(expected, found):
        for place, (was, now) in enumerate(zip(expected, found, strict=True)):
            name = was.get("name", place) if isinstance(was, Mapping) else place
            yield from differences(was, now, f"{field}[{name}]")
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        if list(expected) != list(found):
            yield field, expected, found
    elif expected != found or isinstance(expected, bool) != isinstance(found, bool):
        yield field, expected, found


def _are_alike(expected: Any, found: Any) -> bool:
    """Whether both are lists of as many objects, which are then compared one by one."""
    return (
        isinstance(expected, list | tuple)
        and isinstance(found, list | tuple)
        and len(expected) == len(found) > 0
        and all(isinstance(value, Mapping) for value in (*expected, *found))
    )


def require_same(stored: Any, wanted: Any, where: str, way_out: str) -> None:
    """Raise IdentityError, naming fields and both values, unless `stored` equals `wanted`.

    where: what is compared, e.g. "teacher 'demo' in demo.zarr". way_out: what the user can do.
    """
    different = list(differences(stored, wanted))
    if not different:
        return
    field, was, now = different[0]
    more = (
        f" (and {len(different) - 1} more: {', '.join(f for f, _, _ in different[1:4])})"
        if different[1:]
        else ""
    )
    raise IdentityError(f"{where} differs in {field}: stored {was!r}, wanted {now!r}{more}; {way_out}")
