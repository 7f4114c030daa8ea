"""How the labels of a teacher were made: with which options, from which weights. Reports by teacher, merged.

It lies in reports/made.json, outside every digest, and holds what anybody may know: no path, host or user.

    {"teachers": {<teacher>: {"commands": [[<option>, ...], ...], "model", "weights", "weights_licence"}}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from store.durable import canonical_json, read_json, write_file
from store.errors import CacheError, DamagedCacheError
from store.manifest import REPORTS
from store.untrusted import parse_json

MADE = "made"
MOST_COMMANDS, MOST_WORDS = 100, 200


@dataclass(frozen=True)
class Made:
    """commands: the options of each dump into it, the first first. model, weights, weights_licence: what its
    published weights are, where they are from, and on which terms.
    """

    commands: tuple[tuple[str, ...], ...] = ()
    model: str = ""
    weights: str = ""
    weights_licence: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "commands": [list(command) for command in self.commands],
            "model": self.model,
            "weights": self.weights,
            "weights_licence": self.weights_licence,
        }

    @classmethod
    def from_dict(cls, found: Any) -> Made:
        """Parse `to_dict`'s; of what is missing or of another type nothing is known."""
        fields: Mapping[str, Any] = found if isinstance(found, dict) else {}
        texts = {
            name: value
            for name in ("model", "weights", "weights_licence")
            if isinstance(value := fields.get(name), str)
        }
        told = fields.get("commands")
        commands = told[:MOST_COMMANDS] if isinstance(told, list) else []
        sound = (command for command in commands if isinstance(command, list))
        return cls(tuple(tuple(map(str, command[:MOST_WORDS])) for command in sound), **texts)


def read_made(root: Path, teacher: str) -> Made:
    """How `teacher` was made; nothing is known where the report does not tell."""
    return Made.from_dict(_teachers(root).get(teacher))


def record_made(root: Path, teacher: str, made: Made) -> None:
    """Keep how `teacher` was made; the commands of earlier dumps into it stay before this one's."""
    teachers = _teachers(root)
    before = Made.from_dict(teachers.get(teacher)).commands
    commands = (*before, *(command for command in made.commands if command not in before))
    told = {**teachers, teacher: replace(made, commands=commands).to_dict()}
    write_file(_path(root), canonical_json({"teachers": told}))


def _path(root: Path) -> Path:
    return root / REPORTS / f"{MADE}.json"


def _teachers(root: Path) -> dict[str, Any]:
    try:
        found = read_json(_path(root))["teachers"] if _path(root).exists() else {}
    except (CacheError, KeyError, TypeError):
        found = {}
    return found if isinstance(found, dict) else {}


def merge_reports(root: Path, name: str, theirs: bytes) -> None:
    """Add to the report reports/`name` of the cache at `root` what `theirs` tells of other teachers.

    theirs: the content of another copy's report of that name, {"teachers": {<teacher>: ...}}. What is told
    here of a teacher stays. Raises DamagedCacheError for what is no such report.
    """
    path = root / REPORTS / name
    told = _told_in(theirs, name)
    own = _told_in(path.read_bytes(), name) if path.is_file() else {}
    write_file(path, canonical_json({"teachers": {**told, **own}}))


def _told_in(content: bytes, name: str) -> dict[str, Any]:
    try:
        found = parse_json(content)["teachers"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, dict):
        raise DamagedCacheError(f"{REPORTS}/{name} is no report by teacher; delete it, it is only a report")
    return found
