"""Look-up of plug-ins and names: the folder is the registry, the module's name the key."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TypeVar

from store.errors import UnknownNameError

Value = TypeVar("Value")
SHOWN = 20


def plugin_names(package: ModuleType) -> list[str]:
    """Names of the plug-ins in `package`'s folder: every module but `base`, sorted."""
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in names if name != "base")


def load_plugin(package: ModuleType, kind: str, name: str) -> ModuleType:
    """Import the plug-in `name` of `package`; `kind` is the word for it in the error.

    Raises UnknownNameError, which lists what there is, when no such module exists.
    """
    check_name(kind, name, plugin_names(package))
    return importlib.import_module(f"{package.__name__}.{name}")


def look_up(kind: str, name: str, table: Mapping[str, Value]) -> Value:
    """The entry `name` of `table`; raises UnknownNameError with the nearest names."""
    check_name(kind, name, table)
    return table[name]


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Raise UnknownNameError unless `name` is in `known`."""
    known = sorted(known)
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=SHOWN, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? There is" if nearest else "there is"
    if len(known) > SHOWN:
        known = [*(nearest or known[:SHOWN]), f"... ({len(known)} in all)"]
    raise UnknownNameError(f"unknown {kind} {name!r}; {hint}: {', '.join(known) or 'none'}")
