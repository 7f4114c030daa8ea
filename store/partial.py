"""A partial copy: a cache that was pulled in part, knows what it lacks, and where to get it.

Its manifests are those of the whole, so its digest is the same. `partial.json` beside them, outside every
digest, lists what was left out; anything else that is missing is damage, as in any cache.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from store.durable import canonical_json, read_json, sync_folder, write_file
from store.errors import DamagedCacheError, LeftOutError
from store.untrusted import exact_fields, is_plain_path

PARTIAL = "partial.json"
OF_SPLIT = "with the --split that it is in"


@dataclass(frozen=True)
class Partial:
    """source: the location that the copy was pulled from, pinned. lacks: what was left out, sorted.

    An entry is the path of a group, of the chunks of an array (ends in "/c"), or of one chunk.
    """

    source: str
    lacks: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: str, lacks: Iterable[str]) -> Partial:
        return cls(source, tuple(sorted(set(lacks))))

    @classmethod
    def read(cls, root: Path) -> Partial:
        """What the copy at `root` lacks; nothing where it is whole. Raises DamagedCacheError."""
        if not (root / PARTIAL).is_file():
            return cls("")
        fields: Any = read_json(root / PARTIAL)
        fields = exact_fields(cls, fields, f"{PARTIAL} of {root.name}")
        lacks = fields["lacks"]
        if not isinstance(lacks, list) or not all(map(is_plain_path, lacks)) or lacks != sorted(set(lacks)):
            raise DamagedCacheError(f"{PARTIAL} of {root.name} lists no paths; pull the cache again")
        return cls(fields["source"], tuple(lacks))

    def write(self, root: Path) -> None:
        """Say so at `root`, in one step; a copy that lacks nothing says nothing."""
        if self.lacks:
            write_file(root / PARTIAL, canonical_json({"source": self.source, "lacks": list(self.lacks)}))
        elif (root / PARTIAL).is_file():
            (root / PARTIAL).unlink()
            sync_folder(root)

    def has(self, path: str) -> bool:
        """Whether the object or group at `path` is meant to be here."""
        return not any(entry in self._entries for entry in _upwards(path))

    def lacks_below(self, path: str) -> bool:
        """Whether all chunks of some array at or below `path` were left out."""
        found = bisect_right(self.lacks, f"{path}/")
        later = self.lacks[found:]
        return any(entry.endswith("/c") for entry in _while_below(later, f"{path}/"))

    @cached_property
    def _entries(self) -> frozenset[str]:
        return frozenset(self.lacks)

    def missing(self, what: str, options: str) -> LeftOutError:
        """The error for something that was left out; options: of the `pull` that brings it."""
        return LeftOutError(
            f"{what} is not in this partial copy; get it: python -m store pull {self.source} DIR {options}"
        )


def _upwards(path: str) -> Iterable[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def _while_below(paths: Iterable[str], prefix: str) -> Iterable[str]:
    for path in paths:
        if not path.startswith(prefix):
            return
        yield path
