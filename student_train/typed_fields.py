"""Plain data (YAML, JSON, words of a command line) <-> frozen dataclasses, typed by their fields.

A field's annotation says what it takes: bool, int, float, str, `X | None`, tuples, a mapping from words, or
another dataclass. Nothing is guessed: a value of another type and a key that no field has are refused, with
the dotted path of the place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from store.errors import InputError
from store.lookup import check_name

Settings = TypeVar("Settings")
EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def to_plain(value: Any) -> Any:
    """What YAML and JSON hold of a value: dataclasses and mappings as dicts, tuples as lists."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: to_plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    return value


def updated(settings: Settings, changes: Mapping[str, Any], path: str = "") -> Settings:
    """The dataclass `settings` with what plain `changes` name put in place.

    A dataclass inside is updated field by field; a mapping is replaced, so that what was printed comes back
    exactly. Raises UnknownNameError for a key that is no field, InputError for a value that does not fit.
    """
    kinds = get_type_hints(type(settings))
    found = {}
    for name, change in changes.items():
        place = f"{path}.{name}" if path else str(name)
        check_name("setting", place, [f"{path}.{known}" if path else known for known in kinds])
        current = getattr(settings, name)
        if is_dataclass(current) and isinstance(change, Mapping):
            found[name] = updated(current, change, place)
        else:
            found[name] = typed(group_kind(kinds[name], current), change, place)
    return checked_replace(settings, found, path)


def overridden(settings: Settings, path: str, text: str, before: str = "") -> Settings:
    """The dataclass `settings` with the field at the dotted `path` set to what `text` says.

    In a mapping the rest of the path is the key. text: as in YAML; "1e-3,3e-3" is a list as well.
    Raises UnknownNameError for a path that no field has, InputError for a value that does not fit.
    """
    name, _, rest = path.partition(".")
    kinds = get_type_hints(type(settings))
    place = f"{before}.{name}" if before else name
    check_name("setting", place, [f"{before}.{known}" if before else known for known in kinds])
    current = getattr(settings, name)
    value: Any
    if rest and is_dataclass(current):
        value = overridden(current, rest, text, place)
    elif rest and isinstance(current, Mapping):
        value = {**current, rest: typed(get_args(kinds[name])[1], from_words(text, place), f"{place}.{rest}")}
    elif rest:
        raise InputError(f"{place} is a single value; there is no {before}{path} in it")
    else:
        value = typed(group_kind(kinds[name], current), from_words(text, place), place, text)
    return checked_replace(settings, {name: value}, before)


def group_kind(kind: Any, current: Any) -> Any:
    """The type of a field; of a group that is annotated more widely, that of its present value."""
    return type(current) if is_dataclass(current) else kind


def checked_replace(settings: Any, found: Mapping[str, Any], path: str) -> Any:
    """`dataclasses.replace`; an InputError of the dataclass itself is told with the group's path."""
    try:
        return replace(settings, **found)
    except InputError as error:
        raise InputError(f"{path}: {error}" if path else str(error)) from None


def from_words(text: str, place: str) -> Any:
    """What YAML reads in the words of a command line."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"{place}={text!r} is no value; quote what has brackets or colons") from None


def typed(kind: Any, value: Any, place: str, words: str | None = None) -> Any:
    """Plain `value` as `kind`; words: as it was typed, if it was. Raises InputError naming `place`."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        return from_mapping(kind, value, place)
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        (kind,) = (one for one in inner if one is not NoneType)
        return typed(kind, value, place, words)
    if origin is tuple:
        return typed_tuple(inner, value, place)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise wrong(place, "names with values", value)
        return {key: typed(inner[1], entry, f"{place}.{key}") for key, entry in value.items()}
    return scalar(kind, value, place, words)


def from_mapping(
    kind: type[Settings], value: Any, place: str, kinds: Mapping[str, Any] | None = None
) -> Settings:
    """A dataclass from a plain mapping of its fields; kinds: types of fields annotated more widely."""
    if not isinstance(value, Mapping):
        raise wrong(place, "a group of settings", value)
    hints = {**get_type_hints(kind), **(kinds or {})}
    for name in value:
        check_name("setting", f"{place}.{name}", [f"{place}.{known}" for known in hints])
    required = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}  # type: ignore[arg-type]
    if missing := sorted(required - value.keys()):
        raise InputError(f"{place} lacks {', '.join(missing)}")
    return kind(**{name: typed(hints[name], entry, f"{place}.{name}") for name, entry in value.items()})


def typed_tuple(inner: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    """A list, "a,b,c", or a single value where any number may stand."""
    if isinstance(value, str) and "," in value:
        value = [from_words(part, place) for part in value.split(",")]
    if inner[-1] is Ellipsis:
        value = value if isinstance(value, list | tuple) else [value]
        return tuple(typed(inner[0], one, place) for one in value)
    if not isinstance(value, list | tuple) or len(value) != len(inner):
        raise wrong(place, f"{len(inner)} values", value)
    return tuple(typed(kind, one, place) for kind, one in zip(inner, value, strict=True))


def scalar(kind: type, value: Any, place: str, words: str | None = None) -> Any:
    """One bool, int, float or word; a float also as YAML leaves it unread, "1e-4"."""
    if kind is str and words is not None:
        return words
    if kind is float and isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise wrong(place, "a number", value) from None
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    raise wrong(place, EXPECTED[kind], value)


def wrong(place: str, expected: str, value: Any) -> InputError:
    return InputError(f"{place} is {expected}, not {value!r}")
