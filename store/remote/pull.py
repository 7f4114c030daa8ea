"""Pulling a cache, or a part of it: into a folder aside, verified, renamed when nothing is missing.

A cache that is there already is completed in place: by more of its parts, or to a later state of it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from store.durable import PARTIAL_SUFFIX, ObjectRecord, canonical_json, sync_folder, write_file
from store.errors import (
    DamagedCacheError,
    IdentityError,
    InputError,
    MissingFileError,
    SignatureError,
    UnknownNameError,
)
from store.lock import WriterLock
from store.made import merge_reports
from store.manifest import CARD, CROISSANT, MANIFEST, MOST_OBJECTS, REPORTS, Manifest
from store.partial import Partial
from store.parts import TEACHERS, VIEWS, groups_of
from store.remote.downloads import download, in_threads, missing_bytes
from store.remote.selection import Wanted, left_out
from store.remote.source import Remote
from store.sharing import STATED
from store.signing import SIGNATURE_BYTES, signature_path, verify
from store.untrusted import printable, require_plain_tree

CARD_FILES = (CARD, CROISSANT, STATED)
"""What lies outside every digest and goes along: what a person reads, and whether it may be passed on."""
REPORT_FILES = ("made.json", "retrieval.json")
"""What the card is written from besides the cache; by teacher, so what is told of others is added."""
CARD_BYTES = 1 << 20
MOST_GROUPS = 10_000


@dataclass(frozen=True)
class PullPlan:
    """What a pull brings. bytes: of all `records`; missing: of those not there yet. lacks: see Partial.

    whole: bytes of the groups that it touches. brought: of metadata, which came to make the plan.
    """

    manifest: Manifest
    records: tuple[ObjectRecord, ...]
    lacks: frozenset[str]
    bytes: int
    missing: int
    whole: int
    brought: int


@dataclass(frozen=True)
class Pulled:
    """The state that is at `root` now, the bytes fetched for it, and who signed it.

    beyond: groups that `root` held before and that are no part of the state that was pulled.
    """

    root: Path
    digest: str
    fetched: int
    lacks: tuple[str, ...]
    beyond: tuple[str, ...] = ()
    signer: str | None = None


def plan_only(remote: Remote, destination: Path, wanted: Wanted) -> PullPlan:
    """What `pull` would bring; tables and metadata are read into a folder that is deleted again."""
    manifest = remote.manifest()
    there = destination if (destination / MANIFEST).is_file() else _aside(destination)
    with tempfile.TemporaryDirectory() as folder:
        return _plan(remote, manifest, Path(folder), wanted, there)


def pull(
    remote: Remote, destination: Path, wanted: Wanted, progress: bool = False, trusted: Path | None = None
) -> Pulled:
    """Bring the state that `remote`'s location names, or what is `wanted` of it, to `destination`.

    trusted: keys of which one has to have signed that state, see `store.signing`; SignatureError if none has,
    before anything of it is brought. Raises MissingFileError, UnknownNameError, IdentityError if
    `destination` holds another cache, or, with `trusted`, more than what was signed, InputError if something
    else lies there or the disk is too small, DamagedCacheError, RemoteError, LockedCacheError.
    """
    manifest = remote.manifest()
    signature = b"" if trusted is None else _signature(remote, manifest.digest)
    signer = None if trusted is None else verify(manifest.digest, signature, trusted)
    root = destination if (destination / MANIFEST).is_file() else _aside(destination)
    if root != destination and destination.exists() and not _is_empty_folder(destination):
        raise InputError(f"{destination} exists and is no finished cache; pull into another folder")
    is_new = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(root)
    try:
        require_plain_tree(root)
        kept = _continued(root, manifest, remote)
        beyond = tuple(sorted(kept.groups.keys() - manifest.groups.keys()))
        if trusted is not None and beyond:
            raise _not_signed(root, manifest.digest, beyond)
        plan = _plan(remote, manifest, root, wanted, root)
        _require_space(plan, root)
        with tqdm(
            total=plan.bytes, unit="B", unit_scale=True, desc="pull", disable=None if progress else True
        ) as bar:
            fetched = plan.brought + download(remote, plan.records, root, bar.update)
        _bring_card(remote, root)
        if signature:
            write_file(root / signature_path(manifest.digest), signature)
        partial = _what_lacks(remote, root, plan)
        partial.write(root)
        write_file(root / MANIFEST, canonical_json(kept.to_dict()))
    except UnknownNameError:
        if is_new:
            shutil.rmtree(root)
        raise
    finally:
        lock.release()
    if root != destination:
        if destination.exists():
            destination.rmdir()
        os.rename(root, destination)
        sync_folder(destination.parent)
    return Pulled(destination, kept.digest, fetched, partial.lacks, beyond, signer)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _aside(destination: Path) -> Path:
    return destination.with_name(destination.name + PARTIAL_SUFFIX)


def _continued(root: Path, manifest: Manifest, remote: Remote) -> Manifest:
    """The manifest that `root` will have: of two states of one cache the one that holds the other."""
    if not (root / MANIFEST).is_file():
        return manifest
    here = Manifest.read(root)
    if here.objects == manifest.objects:
        if manifest.groups.items() >= here.groups.items():
            return manifest
        if here.groups.items() >= manifest.groups.items():
            return here
    raise IdentityError(
        f"{root} is {here.digest}, {remote.location} is {manifest.digest}, and neither goes on from the "
        "other; pull into another folder (or push what was added here first)"
    )


def _not_signed(root: Path, digest: str, beyond: tuple[str, ...]) -> IdentityError:
    return IdentityError(
        f"{root} holds {printable(beyond[0])}, which is no part of the signed state {digest}, so the folder "
        "would not be what was signed; pull into another folder"
    )


def _plan(remote: Remote, manifest: Manifest, root: Path, wanted: Wanted, there: Path) -> PullPlan:
    """Bring tables and metadata to `root` and decide; there: where objects may lie already."""
    wanted.check_teachers(manifest)
    manifests = {"": manifest}
    groups = wanted.first_groups(manifest)
    manifests |= _bring_manifests(remote, manifest, groups, root)
    brought = _bring_metadata(remote, manifests, root)
    views = [group for group in wanted.views(root, manifest, groups) if group not in manifests]
    found = _bring_manifests(remote, manifest, views, root)
    brought += _bring_metadata(remote, found, root)
    manifests |= found
    lacks = left_out(root, manifest, manifests, wanted)
    partial = Partial.of("", lacks)
    listed = [record for found in manifests.values() for record in found.objects]
    records = tuple(record for record in listed if partial.has(record.path))
    total = sum(record.bytes for record in records)
    whole = sum(record.bytes for record in listed)
    return PullPlan(manifest, records, frozenset(lacks), total, missing_bytes(there, records), whole, brought)


def _bring_manifests(
    remote: Remote, manifest: Manifest, groups: Iterable[str], root: Path
) -> dict[str, Manifest]:
    found: dict[str, Manifest] = {}
    if len(manifest.groups) > MOST_GROUPS:
        raise DamagedCacheError(
            f"{remote.location}: names {len(manifest.groups):,} groups, over {MOST_GROUPS:,}"
        )

    def bring(group: str) -> None:
        came = remote.group_manifest(group, manifest.groups[group])
        if sum(len(other.objects) for other in list(found.values())) + len(came.objects) > MOST_OBJECTS:
            raise DamagedCacheError(f"{remote.location}: lists over {MOST_OBJECTS:,} objects; not a cache")
        found[group] = came
        write_file(root / group / MANIFEST, canonical_json(came.to_dict()))

    in_threads(bring, groups, remote.stop)
    return found


def _bring_metadata(remote: Remote, manifests: dict[str, Manifest], root: Path) -> int:
    """All metadata, and of the tables and batch plans everything: what a selection is made from; the bytes
    that were fetched."""
    large = {group.path for kind in (TEACHERS, VIEWS) for group in groups_of(manifests, kind)}
    records = [
        record
        for group, manifest in manifests.items()
        for record in manifest.objects
        if group not in large or record.path.endswith("zarr.json")
    ]
    return download(remote, records, root, lambda _: None)


def _require_space(plan: PullPlan, root: Path) -> None:
    free = shutil.disk_usage(root).free
    if plan.missing > free:
        raise InputError(
            f"{plan.missing:,} bytes are to be pulled, {root.parent} has room for {free:,}; make room, or "
            "pull a part: --teacher, --signals, --layers, --split"
        )


def _what_lacks(remote: Remote, root: Path, plan: PullPlan) -> Partial:
    """What the copy lacks now: what neither an earlier pull brought nor this one."""
    source = str(remote.location.pinned(plan.manifest.digest))
    wanted_now = Partial.of(source, plan.lacks)
    if not (root / MANIFEST).is_file():
        return wanted_now
    before = Partial.read(root)
    here = Manifest.read(root)
    new = [group for group in plan.manifest.groups if group not in here.groups]
    before = Partial.of(source, [*before.lacks, *new])
    both = [entry for entry in before.lacks if not wanted_now.has(entry)]
    return Partial.of(source, [*both, *(entry for entry in wanted_now.lacks if not before.has(entry))])


def _signature(remote: Remote, digest: str) -> bytes:
    try:
        return remote.fetch_small(signature_path(digest), SIGNATURE_BYTES)
    except MissingFileError:
        raise SignatureError(
            f"{remote.location}: the state {digest} is not signed; ask who pushed it to push it with --sign, "
            "or pull a pin that is (a state that several people added to has no signature but theirs)"
        ) from None


def _bring_card(remote: Remote, root: Path) -> None:
    """Bring what lies outside every digest; what was stated at `root` of its terms stays as it is."""
    for name in (*CARD_FILES, *(f"{REPORTS}/{report}" for report in REPORT_FILES)):
        if name == STATED and (root / STATED).exists():
            continue
        try:
            content = remote.fetch_small(name, CARD_BYTES)
        except MissingFileError:
            continue
        if name in CARD_FILES:
            write_file(root / name, content)
        else:
            merge_reports(root, name.removeprefix(f"{REPORTS}/"), content)
