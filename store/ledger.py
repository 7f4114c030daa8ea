"""The ledger: one line of JSON a committed task, appended by the coordinator alone.

A task counts once its line stands here, newline included; a line that a crash tore off does not
count, and the next writer cuts it away.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.durable import ObjectRecord, canonical_json, sync_folder, write_file
from store.encodings import ErrorSum
from store.errors import DamagedCacheError
from store.untrusted import exact_fields, parse_json

LEDGER = "ledger.jsonl"


@dataclass(frozen=True)
class VideoFacts:
    """What decoding one video told: `failure` is the reason, or "" when it decoded."""

    row: int
    failure: str
    duration_s: float | None = None
    route: str = ""
    skipped_packets: int = 0


@dataclass(frozen=True)
class Commit:
    """What one finished task wrote: `task` names it, unique in the cache; `seconds` is what it took."""

    task: str
    objects: tuple[ObjectRecord, ...]
    errors: Mapping[str, ErrorSum] = field(default_factory=dict)
    videos: tuple[VideoFacts, ...] = ()
    seconds: float = 0.0

    @property
    def teacher(self) -> str:
        """The teacher that the task belongs to: tasks are named <teacher>/<phase>/<number>."""
        return self.task.split("/")[0]

    def to_dict(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "objects": [record.to_dict() for record in self.objects],
            "errors": {signal: error.to_dict() for signal, error in self.errors.items()},
            "videos": [vars(facts) for facts in self.videos],
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Commit:
        exact_fields(cls, fields, "a task")
        return cls(
            fields["task"],
            tuple(ObjectRecord.from_dict(record) for record in fields["objects"]),
            {signal: ErrorSum.from_dict(error) for signal, error in fields["errors"].items()},
            tuple(VideoFacts(**exact_fields(VideoFacts, facts, "a video")) for facts in fields["videos"]),
            fields["seconds"],
        )


class Ledger:
    """The commits of `folder`/ledger.jsonl, in order; the first `append` creates the file.

    repair: cut away a torn last line; only for who holds the writer's lock.
    """

    def __init__(self, folder: Path, repair: bool = False) -> None:
        self._path = folder / LEDGER
        content = self._path.read_bytes() if self._path.exists() else b""
        whole = content.rfind(b"\n") + 1
        self._commits: dict[str, Commit] = {}
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                commit = Commit.from_dict(parse_json(line))
            except (DamagedCacheError, ValueError, KeyError, TypeError, AttributeError):
                raise DamagedCacheError(
                    f"{LEDGER}, line {number}, is damaged; delete the unfinished cache and dump it anew"
                ) from None
            self._commits[commit.task] = commit
        if repair and whole < len(content):
            os.truncate(self._path, whole)

    def __contains__(self, task: object) -> bool:
        return task in self._commits

    def __iter__(self) -> Iterator[Commit]:
        return iter(self._commits.values())

    def __getitem__(self, task: str) -> Commit:
        return self._commits[task]

    def append(self, commit: Commit) -> None:
        """Make `commit` count: returns when its line is on the disk; half a line is cut away."""
        created = not self._path.exists()
        with open(self._path, "ab", buffering=0) as file:
            whole = file.tell()
            try:
                line = memoryview(canonical_json(commit.to_dict()))
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), whole)
                raise
        if created:
            sync_folder(self._path.parent)
        self._commits[commit.task] = commit

    def forget(self, tasks: Iterable[str]) -> None:
        """Take `tasks` out, in one step; without any left, the file goes."""
        gone = set(tasks)
        left = [commit for commit in self if commit.task not in gone]
        if not left:
            self.delete()
        elif len(left) < len(self._commits):
            write_file(self._path, b"".join(canonical_json(commit.to_dict()) for commit in left))
            self._commits = {commit.task: commit for commit in left}

    def delete(self) -> None:
        self._path.unlink(missing_ok=True)
        self._commits.clear()
        sync_folder(self._path.parent)
