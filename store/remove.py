"""python -m store remove CACHE --teacher X: take one teacher out of a cache, leave the others' bytes alone.

The root's manifest is replaced first, then the ledger: from then on nothing vouches for the teacher. Its
folder is renamed into removed.partial/ in one step and deleted there. So a kill at any moment leaves a
cache that opens, with the whole teacher or without it; the same command again deletes what was left.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from store.card import write_card
from store.cli import add_debug
from store.contents import read_attributes
from store.durable import PARTIAL_SUFFIX, canonical_json, sync_folder, write_file
from store.errors import CacheError
from store.layout import TeacherPlan, plan_path
from store.ledger import LEDGER, Ledger
from store.lock import WriterLock
from store.lookup import check_name
from store.manifest import MANIFEST, Manifest, is_group
from store.parts import TEACHERS, Group, groups_of
from store.reader import read_root
from store.signals import plan_of
from store.untrusted import printable

REMOVED = "removed" + PARTIAL_SUFFIX


@dataclass(frozen=True)
class Removal:
    """What was removed: paths of groups, bytes of their files. kept: those another teacher needs."""

    groups: tuple[str, ...]
    bytes: int
    kept: tuple[str, ...]


def remove_teacher(root: Path, teacher: str) -> Removal:
    """Remove `teacher`, finished or not, from the cache at `root`, and the view and batch plans of it alone.

    Raises MissingFileError if there is no cache, LockedCacheError if another process writes it,
    UnknownNameError for a teacher that is not there.
    """
    read_root(root)
    lock = WriterLock(root)
    try:
        interrupted = _empty_the_bin(root)
        manifest = Manifest.read(root) if (root / MANIFEST).is_file() else None
        known = _teachers(root, manifest)
        if teacher not in known and interrupted is not None:
            return Removal(tuple(sorted(interrupted)), sum(interrupted.values()), ())
        check_name("teacher", teacher, known)
        own = _needs(root, teacher) or set()
        others = [_needs(root, other) for other in known if other != teacher]
        # A teacher whose attributes can't tell may need any.
        kept = own if None in others else own & set().union(*(needs for needs in others if needs))
        parts = sorted((group.path for group in _parts(root, teacher)), reverse=True)
        groups = [*sorted(own - kept), *parts]  # the first part last, so a removal cut short is known by it
        lock.check()
        if manifest is not None and manifest.groups.keys() & set(groups):
            left = {path: digest for path, digest in manifest.groups.items() if path not in groups}
            Manifest.of(manifest.objects, left).write(root)
        _forget_tasks(root, teacher)
        for group in groups:
            _put_in_the_bin(root, group)
        binned = {**(interrupted or {}), **(_empty_the_bin(root) or {})}
        return Removal(tuple(sorted(binned)), sum(binned.values()), tuple(sorted(kept)))
    finally:
        lock.release()


def _teachers(root: Path, manifest: Manifest | None) -> list[str]:
    """Every teacher that the manifest names or that has a folder, begun or left over."""
    listed = groups_of(manifest.groups if manifest else (), TEACHERS)
    return sorted({group.name for group in (*listed, *_folders(root, TEACHERS))})


def _folders(root: Path, kind: str) -> list[Group]:
    """Every group of `kind` that has a folder, in the first rows and in segments."""
    found = (path.relative_to(root).as_posix() for path in root.glob(f"*/{kind}/*") if path.is_dir())
    first = (path.relative_to(root).as_posix() for path in root.glob(f"{kind}/*") if path.is_dir())
    return groups_of([*first, *found], kind)


def _parts(root: Path, teacher: str) -> list[Group]:
    found = [group for group in _folders(root, TEACHERS) if group.name == teacher]
    return found or [Group(TEACHERS, teacher)]


def _needs(root: Path, teacher: str) -> set[str] | None:
    """The groups of the teacher's view and batch plans; None if its attributes can't tell."""
    needed = set()
    for group in _parts(root, teacher):
        try:
            plan = TeacherPlan.from_dict(read_attributes(root, group.path), group.part)
        except CacheError:
            return None
        plans = {plan_path(name) for spec in plan.signals if (name := plan_of(spec.name))}
        needed |= {plan.view_path, *plans}
    return needed


def _forget_tasks(root: Path, teacher: str) -> None:
    """Take the teacher's tasks out of the ledger, lest a resume believes shards written that are gone."""
    if not (root / LEDGER).is_file():
        return
    ledger = Ledger(root)
    left = [commit for commit in ledger if commit.teacher != teacher]
    if not left:
        ledger.delete()
    elif len(left) < len(list(ledger)):
        write_file(root / LEDGER, b"".join(canonical_json(commit.to_dict()) for commit in left))


def _put_in_the_bin(root: Path, group: str) -> None:
    folder, target = root / group, root / REMOVED / group
    if not folder.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    sync_folder(folder.parent)


def _empty_the_bin(root: Path) -> dict[str, int] | None:
    """Delete removed.partial/; the groups that it held, with the bytes of their files; None without it."""
    bin_folder = root / REMOVED
    if not bin_folder.is_dir():
        return None
    held = {
        group.relative_to(bin_folder).as_posix(): sum(
            f.stat().st_size for f in group.rglob("*") if f.is_file()
        )
        for group in (*bin_folder.glob("*/*"), *bin_folder.glob("*/*/*"))
        if is_group(group.relative_to(bin_folder).as_posix())
    }
    shutil.rmtree(bin_folder)
    sync_folder(root)
    return held


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "remove", help="take one teacher out of a cache, with the view and batch plans that only it uses"
    )
    parser.add_argument("cache", type=Path, help="folder of the cache")
    parser.add_argument(
        "--teacher", required=True, metavar="X", help="the teacher to remove, finished or not"
    )
    parser.set_defaults(execute=run_remove)
    add_debug(parser)


def run_remove(arguments: argparse.Namespace) -> int:
    removal = remove_teacher(arguments.cache, arguments.teacher)
    print(f"removed {', '.join(map(printable, removal.groups)) or 'nothing'}: {removal.bytes:,} bytes")
    if removal.kept:
        print(f"kept {', '.join(map(printable, removal.kept))}: another teacher needs it")
    if (arguments.cache / MANIFEST).is_file():
        try:
            write_card(arguments.cache)
        except CacheError as error:
            # What is left may be damaged too, which is why one removes teachers.
            print(f"the card still tells of {printable(arguments.teacher)}: {error}", file=sys.stderr)
    return 0
