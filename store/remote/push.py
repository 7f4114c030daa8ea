"""Pushing a cache: objects first, then the manifest of its state, then the state becomes the latest.

Nothing that was pushed is ever written again. A group is claimed by creating its manifest, so two who push
different content to one path find out before they mix; it counts only once a state names it.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from store.durable import JSON_BYTES, ObjectRecord, canonical_json, json_digest, read_bytes
from store.errors import DamagedCacheError, IdentityError, IncompleteCacheError, RemoteError
from store.manifest import (
    CARD,
    CROISSANT,
    MANIFEST,
    REPORTS,
    Manifest,
    digest_problem,
    size_problem,
)
from store.partial import Partial
from store.parts import group_of
from store.remote import states
from store.remote.downloads import in_threads
from store.remote.persistence import persistently
from store.remote.protocols.base import Upload
from store.remote.pull import CARD_FILES, REPORT_FILES
from store.remote.source import Remote
from store.sharing import require_shareable
from store.signing import sign, signature_path

TABLES_CLAIM = f"{states.SHARING}/tables.json"
MOST_TURNS = 8
Value = TypeVar("Value")


@dataclass(frozen=True)
class PushPlan:
    """What a push has to bring: the groups ("" for the tables) that no state names yet, and their objects."""

    before: states.State | None
    groups: tuple[str, ...]
    records: tuple[ObjectRecord, ...]

    @property
    def bytes(self) -> int:
        return sum(record.bytes for record in self.records)


@dataclass(frozen=True)
class Pushed:
    """digest: of the state that was pushed; latest: of what the place holds now, others' additions included.

    sent: bytes of objects that were uploaded; groups: that the place did not have.
    """

    digest: str
    latest: str
    sent: int
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Terms:
    """How a state is pushed: its `tag`; `key`, an SSH key that signs it.

    force: move the tag if it names another state, and take over a group that somebody began and never
    finished. may_share: although the card of the cache forbids it.
    """

    tag: str | None = None
    force: bool = False
    key: Path | None = None
    may_share: bool = False


def push(root: Path, remote: Remote, terms: Terms | None = None, progress: bool = False) -> Pushed:
    """Push the finished cache at `root` to `remote`, as its first state or as an addition.

    Raises NotShareableError unless its card or `terms` allow that, IdentityError where the place holds other
    content under the same name, IncompleteCacheError, DamagedCacheError for a local object that changed,
    RemoteError.
    """
    terms = terms or Terms()
    pushing = _Push(root, remote, terms.force)
    if not terms.may_share:
        require_shareable(root)
    tag = terms.tag
    if tag is not None:
        pushing.check_tag(tag)
    signature = None if terms.key is None else sign(pushing.digest, terms.key)
    plan = pushing.plan()
    sent = pushing.upload(plan, progress)
    if signature is not None:
        pushing.overwrite(signature_path(pushing.digest), signature)
    latest = pushing.publish(plan)
    if tag is not None:
        pushing.ask(
            states.tag_path(tag), lambda: states.set_tag(remote.endpoint, tag, pushing.digest, terms.force)
        )
    return Pushed(pushing.digest, latest, sent, plan.groups)


def plan_push(root: Path, remote: Remote) -> PushPlan:
    """What `push` would bring; asks the place for its latest state and writes nothing."""
    return _Push(root, remote, False).plan()


class _Push:
    """One push under way."""

    def __init__(self, root: Path, remote: Remote, force: bool) -> None:
        if not (root / MANIFEST).is_file():
            raise IncompleteCacheError(f"{root} is unfinished or no cache; only finished caches are pushed")
        if not remote.endpoint.writable:
            raise remote.endpoint.read_only()
        self.root = root
        self.remote = remote
        self.endpoint = remote.endpoint
        self.force = force
        self.manifest = Manifest.read(root)
        self.partial = Partial.read(root)

    @property
    def digest(self) -> str:
        return self.manifest.digest

    def ask(self, path: str, act: Callable[[], Value]) -> Value:
        return persistently(
            act, self.remote.where(path), self.remote.patience, self.endpoint.reset, self.remote.stop
        )

    def check_tag(self, tag: str) -> None:
        """Raise before anything is sent where the tag names another state already."""
        named = self.ask(states.tag_path(tag), lambda: states.read_tag(self.endpoint, tag))
        if named not in (None, self.digest) and not self.force:
            raise states.tag_is_taken(self.endpoint, tag, str(named), self.digest)

    def latest(self) -> states.State | None:
        def read() -> states.State | None:
            try:
                return states.latest(self.endpoint)
            except FileNotFoundError:
                return None

        return self.ask(MANIFEST, read)

    def plan(self) -> PushPlan:
        before = self.latest()
        groups = self._new_groups(before)
        manifests = {group: self._own_manifest(group) for group in groups}
        records = [record for group in groups for record in manifests[group].objects]
        absent = [group for group in groups if not self.partial.has(group)]
        absent += [record.path for record in records if not self.partial.has(record.path)]
        if absent:
            raise IncompleteCacheError(
                f"{self.root} is a partial copy without {absent[0]}, which {self.remote.location} has not "
                f"either; get it first: python -m store pull {self.partial.source} {self.root}"
            )
        return PushPlan(before, groups, tuple(records))

    def _own_manifest(self, group: str) -> Manifest:
        if not group:
            return self.manifest
        if not self.partial.has(group):
            return Manifest((), {})
        return Manifest.read(self.root, group, self.manifest.groups[group])

    def _new_groups(self, before: states.State | None) -> tuple[str, ...]:
        """The groups that the latest state does not name; raises IdentityError for one it has otherwise."""
        if before is None:
            return ("", *sorted(self.manifest.groups))
        theirs = before.manifest
        if theirs.objects != self.manifest.objects:
            raise IdentityError(
                f"{self.remote.location} holds another dataset than {self.root}: its tables differ "
                f"({theirs.digest[:12]}... there, {self.digest[:12]}... here); push to another URL"
            )
        for group, digest in self.manifest.groups.items():
            if theirs.groups.get(group, digest) != digest:
                raise self._taken(group, "has been pushed there by somebody else")
        return tuple(sorted(self.manifest.groups.keys() - theirs.groups.keys()))

    def _taken(self, group: str, why: str) -> IdentityError:
        return IdentityError(
            f"{group or 'the tables'} of {self.remote.location}: other content {why}, and what was pushed is "
            "not written again; pull that state, add yours to it under another name, and push then"
        )

    def upload(self, plan: PushPlan, progress: bool) -> int:
        """Bring every object that is not there; the bytes that were sent."""
        own = {group for group in plan.groups if self._claim(group)}
        there = {path: size for path, size in self._sizes(plan.groups).items() if group_of(path) in own}
        missing = [record for record in plan.records if there.get(record.path) != record.bytes]
        together = self.endpoint.uploads_together
        portions = [missing[first : first + together] for first in range(0, len(missing), together)]
        with tqdm(
            total=plan.bytes, unit="B", unit_scale=True, desc="push", disable=None if progress else True
        ) as bar:
            bar.update(plan.bytes - sum(record.bytes for record in missing))

            def send(records: Sequence[ObjectRecord]) -> None:
                if not self.remote.stop.is_set():
                    self._send(records)
                    bar.update(sum(record.bytes for record in records))

            in_threads(send, portions, self.remote.stop)
        self._require_arrived(plan, missing)
        return sum(record.bytes for record in missing)

    def _claim(self, group: str) -> bool:
        """Say that this content comes under the group's path; whether what lies there may be part of it."""
        path = f"{group}/{MANIFEST}" if group else TABLES_CLAIM
        objects = [record.to_dict() for record in self.manifest.objects]
        content = read_bytes(self.root / path) if group else canonical_json({"sha256": json_digest(objects)})
        if self.ask(path, lambda: self.endpoint.create(path, content)):
            return True
        if self.remote.fetch_small(path, JSON_BYTES) == content:
            return True
        if not self.force:
            raise self._taken(
                group, "is being pushed there, or was begun and never finished (then say --force)"
            )
        self.ask(path, lambda: self.endpoint.overwrite(path, content))
        return False

    def _sizes(self, groups: Sequence[str]) -> dict[str, int]:
        """Bytes of what lies below `groups`, by path; the tables lie below no folder of their own."""
        found: dict[str, int] = {}
        for folder in ("",) if "" in groups else groups:
            found |= self.ask(folder or "the list", functools.partial(self.endpoint.sizes, folder))
        return found

    def _send(self, records: Sequence[ObjectRecord]) -> None:
        for record in records:
            problem = size_problem(self.root, record) or digest_problem(self.root, record)
            if problem:
                raise DamagedCacheError(
                    f"{record.path} of {self.root} {problem}; it is not pushed, pull it again"
                )
        uploads = [Upload(record.path, self.root / record.path, record.bytes) for record in records]
        self.ask(records[0].path, lambda: self.endpoint.put(uploads))

    def _require_arrived(self, plan: PushPlan, sent: Sequence[ObjectRecord]) -> None:
        """Raise RemoteError unless the server has every object that was sent, in its size."""
        if not sent:
            return
        found = self._sizes(plan.groups)
        for record in sent:
            if found.get(record.path) != record.bytes:
                raise RemoteError(
                    f"{self.remote.where(record.path)}: {record.bytes:,} bytes were sent, the server has "
                    f"{found.get(record.path, 0):,}; push again"
                )

    def publish(self, plan: PushPlan) -> str:
        """Make the state a pin, and the latest one; the digest of the latest."""
        before = plan.before
        for state in (self.manifest, *self.manifest.earlier()):
            self._record(state)
        for turn in range(MOST_TURNS):
            new = self._new_groups(before)
            if before is not None and not new:
                latest = before.manifest
                self.ask(MANIFEST, functools.partial(states.show_latest, self.endpoint, before))
                break
            latest = self.manifest
            if before is not None:
                latest = before.manifest.extended({group: self.manifest.groups[group] for group in new})
            self._record(latest)
            if self.ask(MANIFEST, functools.partial(states.advance, self.endpoint, before, latest)):
                break
            time.sleep(random.uniform(0, 0.1 * 2**turn))
            before = self.latest()
        else:
            raise RemoteError(
                f"{self.remote.location}: others finished pushes {MOST_TURNS} times in between; all that "
                "you pushed is there but not yet named: run the same push again"
            )
        if latest.groups == self.manifest.groups:
            self._bring_card()
        return latest.digest

    def _record(self, state: Manifest) -> None:
        self.ask(states.state_path(state.digest), lambda: states.record_state(self.endpoint, state))

    def _bring_card(self) -> None:
        """The card tells of the whole state, so it goes along only where this is the whole state.

        The card of a partial copy tells of the part: it stays, what others need to write theirs goes.
        """
        told = (*CARD_FILES, *(f"{REPORTS}/{report}" for report in REPORT_FILES))
        names = [name for name in told if not self.partial.lacks or name not in (CARD, CROISSANT)]
        for name in _files(self.root, names):
            self.overwrite(name, read_bytes(self.root / name))

    def overwrite(self, path: str, content: bytes) -> None:
        self.ask(path, lambda: self.endpoint.overwrite(path, content))


def _files(root: Path, names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if (root / name).is_file())
