"""Manifests: what a finished cache consists of, each object by size and sha256, sorted, signed by a digest.

The tables have the root's manifest; each view and each teacher has its own, named by digest in the
root's. So adding a teacher changes no manifest but its own and the root's, and the digest of the
root's manifest names the whole cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.durable import (
    ObjectRecord,
    canonical_json,
    is_sha256,
    json_digest,
    read_bytes,
    record_file,
    write_file,
)
from store.errors import DamagedCacheError, InputError
from store.partial import PARTIAL, Partial
from store.parts import group_at, group_of
from store.untrusted import JSON_VALUES, parse_json

MANIFEST = "manifest.json"
REPORTS, SIGNATURES, SHARING = "reports", "signatures", "sharing"
CARD, CROISSANT = "README.md", "croissant.json"
MOST_OBJECTS = JSON_VALUES // 5


@dataclass(frozen=True)
class Manifest:
    """objects: of this group, sorted by path. groups: views/<v>, teachers/<t>, ... -> digest (root only).

    added: the groups that came to the finished cache, in steps, each sorted. Nothing that a manifest named is
    ever written again, so every earlier state follows from the steps, its digest included. The digest does
    not cover the steps: what a cache holds names it, not the order in which that came.
    """

    objects: tuple[ObjectRecord, ...]
    groups: Mapping[str, str]
    added: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, objects: Iterable[ObjectRecord], groups: Mapping[str, str] | None = None) -> Manifest:
        return cls(tuple(sorted(objects, key=lambda record: record.path)), dict(groups or {}))

    def extended(self, groups: Mapping[str, str]) -> Manifest:
        """This manifest with `groups` beside those that it names, as one more step if it names any."""
        steps = (*self.added, tuple(sorted(groups))) if self.groups else ()
        return Manifest(self.objects, {**self.groups, **groups}, steps)

    def earlier(self) -> Iterator[Manifest]:
        """What the cache consisted of before, the latest state first."""
        groups = dict(self.groups)
        for step in range(len(self.added) - 1, -1, -1):
            groups = {path: digest for path, digest in groups.items() if path not in self.added[step]}
            yield Manifest(self.objects, groups, self.added[:step])

    def as_of(self, digest: str) -> Manifest | None:
        """The state that `digest` names: this one or an earlier one; None if the cache never was that."""
        return next((state for state in (self, *self.earlier()) if state.digest == digest), None)

    def _body(self) -> dict[str, Any]:
        return {
            "format": 1,
            "objects": [record.to_dict() for record in self.objects],
            "groups": dict(self.groups),
        }

    def to_dict(self) -> dict[str, Any]:
        steps = [list(step) for step in self.added]
        told = {"added": {"steps": steps, "sha256": json_digest(steps)}} if steps else {}
        return {**self._body(), **told, "digest": self.digest}

    @property
    def digest(self) -> str:
        """sha256 (hex) of the canonical JSON of everything but the digest itself."""
        return json_digest(self._body())

    def write(self, folder: Path) -> None:
        """Write `folder`/manifest.json; raises InputError for more objects than a reader would accept."""
        if len(self.objects) > MOST_OBJECTS:
            raise InputError(f"{len(self.objects):,} objects are over {MOST_OBJECTS:,}; write larger shards")
        write_file(folder / MANIFEST, canonical_json(self.to_dict()))

    @classmethod
    def read(cls, root: Path, group: str = "", digest: str | None = None) -> Manifest:
        """Read and check the manifest of the cache at `root`, or of its `group` (views/<v>, teachers/<t>).

        Spelling (canonical JSON), self-digest, and paths: plain, sorted, each once, of this group alone.
        digest: what the root's manifest says of a group's. Raises DamagedCacheError.
        """
        path = root / group / MANIFEST
        if not path.is_file():
            raise DamagedCacheError(f"{_name(group)} of {root.name} is missing; pull it again")
        return cls.parse(read_bytes(path), root.name, group, digest)

    @classmethod
    def parse(cls, content: bytes, cache: str, group: str = "", digest: str | None = None) -> Manifest:
        """The manifest in `content`, checked as `read` does; `cache` is its name in the error."""
        name = _name(group)
        try:
            document = parse_json(content)
            found = cls(
                tuple(map(ObjectRecord.from_dict, document["objects"])),
                document["groups"],
                tuple(map(tuple, document["added"]["steps"])) if "added" in document else (),
            )
            sound = canonical_json(found.to_dict()) == content
            sound = sound and found._is_of(group)
        except (ValueError, KeyError, TypeError, AttributeError, DamagedCacheError):
            sound = False
        if not sound:
            raise DamagedCacheError(f"{name} of {cache} was changed after it was written; pull it again")
        if digest is not None and found.digest != digest:
            raise DamagedCacheError(
                f"{name} of {cache} is not the one that the cache was completed with; pull it again"
            )
        return found

    def _is_of(self, group: str) -> bool:
        """Whether the objects, sorted and each once, lie in `group`; the root's lie in no group."""
        paths = [record.path for record in self.objects]
        steps = [path for step in self.added for path in step]
        own = (
            all(is_group(name) and is_sha256(digest) for name, digest in self.groups.items())
            and len(set(steps)) == len(steps)
            and self.groups.keys() >= set(steps)
            and all(list(step) == sorted(step) for step in self.added)
        )
        if group:
            own = not self.groups and not self.added
        own = own and all(group_of(path) == group for path in paths)
        return own and paths == sorted(set(paths)) and not any(is_outside(path) for path in paths)

    def check(self, root: Path) -> None:
        """Hold every object to its size, and metadata (zarr.json: what a number means) to its digest.

        What a partial copy left out is not looked for. Raises DamagedCacheError naming the first object that
        is missing or differs.
        """
        partial = Partial.read(root)
        for record in self.objects:
            if not partial.has(record.path):
                continue
            problem = size_problem(root, record)
            if problem is None and record.path.endswith("zarr.json"):
                problem = digest_problem(root, record)
            if problem:
                raise DamagedCacheError(f"{record.path} {problem}; pull the cache again or dump it anew")


def _name(group: str) -> str:
    return f"{group}/{MANIFEST}" if group else MANIFEST


def size_problem(root: Path, record: ObjectRecord) -> str | None:
    """What is wrong with the object's size, in words; None if nothing is."""
    path = root / record.path
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        return "is missing"
    return None if size == record.bytes else f"has {size} bytes, not {record.bytes}"


def digest_problem(root: Path, record: ObjectRecord) -> str | None:
    """What is wrong with the object's bytes, in words; None if their sha256 is the recorded one."""
    if record_file(root, root / record.path) == record:
        return None
    return "was changed after it was written: its sha256 is another"


def is_group(path: str) -> bool:
    """Whether `path` is views/<view>, teachers/<teacher> or plans/<plan>, or of an appended segment."""
    return group_at(path) is not None


def is_outside(path: str) -> bool:
    """Whether `path` lies outside every digest: reports, signatures, card, what tells of copies, states."""
    return path.split("/")[0] in (REPORTS, SIGNATURES, SHARING) or path in (CARD, CROISSANT, PARTIAL)
