"""Manifests: what a finished cache consists of, each object by size and sha256, sorted, signed by a digest.

The tables have the root's manifest; each view and each teacher has its own, named by digest in the
root's. So adding a teacher changes no manifest but its own and the root's, and the digest of the
root's manifest names the whole cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.durable import ObjectRecord, canonical_json, json_digest, read_json, record_file, write_file
from store.errors import DamagedCacheError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """objects: of this group, sorted by path. groups: views/<v> and teachers/<t> -> digest (root only)."""

    objects: tuple[ObjectRecord, ...]
    groups: Mapping[str, str]

    @classmethod
    def of(cls, objects: Iterable[ObjectRecord], groups: Mapping[str, str] | None = None) -> Manifest:
        return cls(tuple(sorted(objects, key=lambda record: record.path)), dict(groups or {}))

    def _body(self) -> dict[str, Any]:
        return {
            "format": 1,
            "objects": [record.to_dict() for record in self.objects],
            "groups": dict(self.groups),
        }

    @property
    def digest(self) -> str:
        """sha256 (hex) of the canonical JSON of everything but the digest itself."""
        return json_digest(self._body())

    def write(self, folder: Path) -> None:
        write_file(folder / MANIFEST, canonical_json({**self._body(), "digest": self.digest}))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check the manifest of `folder`: canonical spelling, self-digest, plain relative paths."""
        path = folder / MANIFEST
        document = read_json(path)
        try:
            objects = tuple(ObjectRecord(**fields) for fields in document["objects"])
            found = cls(objects, document["groups"])
            sound = canonical_json({**found._body(), "digest": found.digest}) == path.read_bytes()
            plain = all(is_plain(name) for name in [*(record.path for record in objects), *found.groups])
        except (KeyError, TypeError, AttributeError, ValueError):
            sound = plain = False
        if not (sound and plain):
            raise DamagedCacheError(f"{path} was changed after it was written; pull it again")
        return found

    def check(self, root: Path) -> None:
        """Hold every object to its size, and metadata (zarr.json: what a number means) to its digest.

        Raises DamagedCacheError naming the first object that is missing or differs.
        """
        for record in self.objects:
            path = root / record.path
            size = path.stat().st_size if path.is_file() else None
            if size != record.bytes:
                found = "is missing" if size is None else f"has {size} bytes, not {record.bytes}"
                raise DamagedCacheError(f"{record.path} {found}; pull the cache again or dump it anew")
            if path.name == "zarr.json" and record_file(root, path) != record:
                raise DamagedCacheError(f"{record.path} was changed after it was written; pull it again")


def is_plain(path: str) -> bool:
    """Whether `path` is relative, posix, and can't leave its folder."""
    return (
        all(part not in ("", ".", "..") for part in path.split("/")) and "\\" not in path and ":" not in path
    )
