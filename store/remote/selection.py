"""Which part of a cache is wanted, and what is left out then, decided from manifests and metadata alone.

Tables, batch plans, metadata and columns always come; of the sharded arrays those of other signals stay
behind, and with splits the shards that hold none of their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.contents import read_plan
from store.durable import ObjectRecord
from store.errors import UnknownNameError
from store.kept_pixels import PIXEL_JPEG, PIXEL_JPEG_SPAN, PIXELS
from store.layout import TeacherPlan, view_path
from store.lookup import check_name
from store.manifest import Manifest
from store.object_checks import parse_metadata
from store.parts import PLANS, TABLES, TEACHERS, VIEWS, Group, groups_of
from store.segments import Tables, read_datasets
from store.shards import RowsArray
from store.signals import SignalSpec

LAYERS = "vit_layers"


@dataclass(frozen=True)
class Wanted:
    """Names that were asked for; nothing asked for means all.

    signals: names, or what comes before their '/' (vit_layers, topk_scores); `pixels` are the kept frames.
    layers: of vit_layers, beside `signals` where those are given.
    """

    teachers: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()

    def wants(self, signal: str) -> bool:
        family = signal.split("/")[0]
        if family == LAYERS and self.layers:
            return signal.removeprefix(f"{LAYERS}/") in self.layers or signal in self.signals
        return not self.signals or signal in self.signals or family in self.signals

    def check_teachers(self, manifest: Manifest) -> None:
        """Raise UnknownNameError for a teacher that the manifest does not name."""
        known = {group.name for group in groups_of(manifest.groups, TEACHERS)}
        for name in self.teachers:
            check_name("teacher", name, known)

    def first_groups(self, manifest: Manifest) -> list[str]:
        """Tables, batch plans, and all parts of the teachers that are wanted."""
        teachers = [
            group
            for group in groups_of(manifest.groups, TEACHERS)
            if not self.teachers or group.name in self.teachers
        ]
        kinds = (TABLES, PLANS) if self.teachers else (TABLES, PLANS, VIEWS)
        return [
            group.path
            for group in (*(g for kind in kinds for g in groups_of(manifest.groups, kind)), *teachers)
        ]

    def views(self, root: Path, manifest: Manifest, groups: Iterable[str]) -> list[str]:
        """The views of the teachers in `groups`, whose metadata lie at `root`."""
        found = {
            view_path(plan.view.name, group.part.segment)
            for group in groups_of(groups, TEACHERS)
            for plan in [read_plan(root, group.name, group.part)]
        }
        return sorted(found & manifest.groups.keys())


def left_out(root: Path, manifest: Manifest, manifests: Mapping[str, Manifest], wanted: Wanted) -> set[str]:
    """What a copy with `wanted` lacks, as `store.partial` spells it.

    manifests: of every group that comes at all; their metadata and the tables lie at `root`. Raises
    UnknownNameError for a signal, layer or split that there is not.
    """
    lacks = set(manifest.groups) - set(manifests)
    plans = {group: read_plan(root, group.name, group.part) for group in groups_of(manifests, TEACHERS)}
    _check_signals(root, wanted, plans.values(), manifests)
    rows = _Rows(root, manifest, wanted) if wanted.splits else None
    for group, plan in plans.items():
        for path, array in _sharded(root, manifests[group.path].objects):
            spec = _owner(plan, path)
            if spec is not None and not wanted.wants(spec.name):
                lacks.add(f"{path}/c")
            elif spec is not None and rows is not None and rows.decide(spec, array):
                lacks |= rows.unwanted_shards(path, array, group)
    for group in groups_of(manifests, VIEWS):
        for path, array in _sharded(root, manifests[group.path].objects):
            name = path.removeprefix(f"{group.path}/")
            if name in (PIXELS, PIXEL_JPEG, PIXEL_JPEG_SPAN) and not wanted.wants(PIXELS):
                lacks.add(f"{path}/c")
            elif name == PIXELS and rows is not None:
                lacks |= rows.unwanted_shards(path, array, group)
    return lacks


def _check_signals(
    root: Path, wanted: Wanted, plans: Iterable[TeacherPlan], manifests: Mapping[str, Manifest]
) -> None:
    names = {spec.name for plan in plans for spec in plan.signals}
    known = names | {name.split("/")[0] for name in names} | {PIXELS}
    for signal in wanted.signals:
        check_name("signal", signal, known)
    for layer in wanted.layers:
        if f"{LAYERS}/{layer}" not in names:
            there = sorted(name.removeprefix(f"{LAYERS}/") for name in names if name.startswith(f"{LAYERS}/"))
            raise UnknownNameError(f"unknown layer {layer!r}; there is: {', '.join(there) or 'none'}")


def _sharded(root: Path, records: Iterable[ObjectRecord]) -> Iterator[tuple[str, RowsArray]]:
    """The sharded arrays whose metadata are among `records`, by path."""
    for record in records:
        if record.path.endswith("/zarr.json"):
            array = parse_metadata(root, record)
            if array is not None and array.shard_rows is not None:
                yield record.path.removesuffix("/zarr.json"), array


def _owner(plan: TeacherPlan, path: str) -> SignalSpec | None:
    inner = path.removeprefix(f"{plan.path}/")
    return next((s for s in plan.signals if inner == s.name or inner.startswith(f"{s.name}/")), None)


class _Rows:
    """The rows of the wanted splits, and which shards hold them."""

    def __init__(self, root: Path, manifest: Manifest, wanted: Wanted) -> None:
        self._tables = Tables(root, read_datasets(root, manifest.groups))
        for name in wanted.splits:
            check_name("split", name, self._tables.dataset["splits"])
        splits = [self._tables.split(name) for name in wanted.splits]
        self._of = {
            "V": np.unique(np.concatenate([split.video for split in splits])),
            "T": np.unique(np.concatenate([split.text for split in splits])),
        }

    def decide(self, spec: SignalSpec, array: RowsArray) -> bool:
        """Whether rows of other splits may be left out: not of what is always read whole."""
        joined_scores = spec.kind.axes == "VT" and len(self._tables.segments) > 1
        return array.axes[0] in self._of and not spec.name.startswith("topk_scores/") and not joined_scores

    def unwanted_shards(self, path: str, array: RowsArray, group: Group) -> set[str]:
        segment = self._tables.segments[group.part.segment]
        first, end = segment.video if array.axes[0] == "V" else segment.text
        rows = self._of[array.axes[0]]
        assert array.shard_rows is not None
        kept = set(np.unique((rows[(rows >= first) & (rows < end)] - first) // array.shard_rows).tolist())
        if not kept:
            return {f"{path}/c"} if array.shard_count else set()
        return {
            f"{path}/{array.shard_path(number)}" for number in range(array.shard_count) if number not in kept
        }
