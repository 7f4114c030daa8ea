"""Reading a pickle that may hold dict, list and str and nothing else: no class of it is ever looked up."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

from store.errors import InputError

BROKEN = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError,
    ImportError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip


class _ForbiddenClassError(ValueError):
    """The pickle asks for a class or a function."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise _ForbiddenClassError(f"it asks for {module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _ForbiddenClassError("it asks for an object outside of it")


def read_plain_pickle(path: Path) -> Any:
    """What `path` holds, made of dict, list and str alone; strings of Python 2 are read as UTF-8.

    Raises InputError for anything else: nothing in the file is ever imported or called.
    """
    try:
        value = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="utf-8").load()
        _require_plain(value)
    except BROKEN as error:
        raise InputError(
            f"{path}: not a pickle of dict, list and str alone ({error or type(error).__name__}); "
            "restore the published file"
        ) from error
    return value


def _require_plain(value: object) -> None:
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if type(item) is str:
            continue
        if type(item) not in (dict, list):
            raise _ForbiddenClassError(f"it holds {type(item).__name__}")
        if id(item) in seen:
            continue
        seen.add(id(item))
        waiting.extend([*item.keys(), *item.values()] if isinstance(item, dict) else item)  # type: ignore[arg-type]
