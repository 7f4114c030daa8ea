"""Pulling a part: valid, told beforehand, and clear about what it lacks and where to get it."""

from __future__ import annotations

import numpy as np
import pytest

from store.__main__ import build_parser
from store.cli import run_cli
from store.errors import IncompleteCacheError, MissingFileError, UnknownNameError
from store.manifest import Manifest
from store.partial import PARTIAL, Partial
from store.reader import open_cache
from store.remote.location import Location
from store.remote.pull import plan_only, pull
from store.remote.push import push
from store.remote.selection import Wanted
from store.verify import verify
from tests.store.remote.conftest import add_teacher, at

SIGNALS = ("frame_relevance", "video_text_logits")


@pytest.fixture
def shared(cache, tmp_path) -> str:
    """URL of a cache with two teachers."""
    push(add_teacher(cache, "second"), at(str(tmp_path / "shared.zarr")))
    return str(tmp_path / "shared.zarr")


def part(shared: str, tmp_path, **wanted):
    pull(at(shared), tmp_path / "part.zarr", Wanted(**wanted))
    return open_cache(tmp_path / "part.zarr")


def test_one_teacher_comes_without_the_other_and_the_digest_is_that_of_the_whole(shared, cache, tmp_path):
    copy = part(shared, tmp_path, teachers=("second",))
    assert copy.digest == open_cache(cache).digest
    assert copy.teacher_names == ["second"]
    assert not (tmp_path / "part.zarr" / "teachers" / "synthetic").exists()
    with pytest.raises(
        MissingFileError, match=r"teacher 'synthetic' .*pull .*@sha256:.* --teacher synthetic"
    ):
        copy.teacher("synthetic")
    report = verify(tmp_path / "part.zarr")
    assert report.count == 0
    assert any("lacks teachers/synthetic" in note for note in report.notes)


def test_some_signals_read_as_in_the_whole_and_the_others_say_where_they_are(shared, cache, tmp_path):
    copy = part(shared, tmp_path, teachers=("second",), signals=SIGNALS).teacher("second")
    whole = open_cache(cache).teacher("second")
    assert sorted(copy.signals) == sorted(SIGNALS)
    rows = np.arange(20)
    for signal in SIGNALS:
        assert (copy.read(signal, rows) == whole.read(signal, rows)).all()
    assert (copy.pair_scores(rows, rows)[0] == whole.pair_scores(rows, rows)[0]).all()
    with pytest.raises(
        MissingFileError, match=r"signal 'text_embedding' .*--teacher second --signals text_emb"
    ):
        copy.read("text_embedding", rows)


@pytest.mark.slow
def test_scores_never_come_from_another_layout_because_the_stored_ones_were_left_out(shared, tmp_path):
    copy = part(shared, tmp_path, signals=("frame_embedding", "text_embedding"))
    with pytest.raises(MissingFileError, match="video_text_logits"):
        copy.teacher("second").pair_scores(np.arange(3), np.arange(3))


def test_one_split_brings_the_shards_that_hold_its_rows(shared, cache, tmp_path):
    copy = part(shared, tmp_path, teachers=("second",), splits=("val",))
    whole = open_cache(cache)
    rows = whole.split("val").video
    reader = copy.teacher("second")
    assert (
        reader.read("frame_embedding", rows) == whole.teacher("second").read("frame_embedding", rows)
    ).all()
    with pytest.raises(MissingFileError, match=r"row 0 of teachers/second/frame_embedding .*--split"):
        reader.read("frame_embedding", np.array([0]))
    assert verify(tmp_path / "part.zarr").count == 0


@pytest.mark.slow
def test_layers_and_families_of_signals_are_chosen_by_name(shared, tmp_path):
    assert sorted(part(shared, tmp_path, signals=("vit_layers",)).teacher("second").signals) == [
        "vit_layers/1"
    ]
    for wanted in (Wanted(signals=("nonsense",)), Wanted(layers=("7",)), Wanted(splits=("nonsense",))):
        with pytest.raises(UnknownNameError, match="unknown"):
            pull(at(shared), tmp_path / "other.zarr", wanted)
    with pytest.raises(UnknownNameError, match="unknown teacher"):
        pull(at(shared), tmp_path / "other.zarr", Wanted(teachers=("nobody",)))


@pytest.mark.slow
def test_the_bytes_are_told_beforehand_and_nothing_is_written(shared, tmp_path, capsys):
    wanted = Wanted(teachers=("second",), signals=SIGNALS, splits=("train",))
    plan = plan_only(at(shared), tmp_path / "part.zarr", wanted)
    assert not (tmp_path / "part.zarr").exists()
    assert plan.missing == plan.bytes < plan.whole
    command = ["pull", shared, str(tmp_path / "part.zarr"), "--teacher", "second", "--split", "train"]
    assert run_cli(build_parser(), [*command, "--signals", ",".join(SIGNALS), "--dry-run"]) == 0
    assert f"{plan.bytes:,} bytes" in capsys.readouterr().out
    pull(at(shared), tmp_path / "part.zarr", wanted)
    again = plan_only(at(shared), tmp_path / "part.zarr", wanted)
    assert again.missing == 0
    held = sum(
        record.bytes
        for group in ("", *Manifest.read(tmp_path / "part.zarr").groups)
        if (tmp_path / "part.zarr" / group / "manifest.json").is_file()
        for record in Manifest.read(tmp_path / "part.zarr", group).objects
        if (tmp_path / "part.zarr" / record.path).is_file()
    )
    assert held == plan.bytes


@pytest.mark.slow
def test_a_part_grows_to_the_whole_and_fetches_each_object_once(shared, cache, tmp_path):
    part(shared, tmp_path, teachers=("second",), signals=("frame_relevance",), splits=("train",))
    copy = part(shared, tmp_path, teachers=("second",), splits=("val",))
    rows = np.concatenate([copy.split("train").video, copy.split("val").video])
    relevance = copy.teacher("second").read("frame_relevance", rows)
    assert (relevance == open_cache(cache).teacher("second").read("frame_relevance", rows)).all()
    whole = part(shared, tmp_path)
    assert whole.teacher_names == ["second", "synthetic"]
    assert not (tmp_path / "part.zarr" / "partial.json").exists()
    assert verify(tmp_path / "part.zarr").count == 0
    assert pull(at(shared), tmp_path / "part.zarr", Wanted()).fetched == 0


def test_what_a_part_should_hold_and_does_not_is_damage(shared, tmp_path):
    part(shared, tmp_path, teachers=("second",))
    (tmp_path / "part.zarr" / "teachers/second/text_embedding/c/0/0").unlink()
    assert next(fault.problem for fault in verify(tmp_path / "part.zarr").faults) == "is missing"


def test_a_teacher_is_added_to_a_part_and_pushed_without_the_objects_that_it_lacks(shared, tmp_path):
    """The third person of the team: no copy of the first teacher, and none of its objects touched."""
    part(shared, tmp_path, teachers=("second",), signals=("frame_relevance",))
    add_teacher(tmp_path / "part.zarr", "third")
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "shared.zarr").rglob("c/*") if path.is_file()
    }
    pushed = push(tmp_path / "part.zarr", at(shared))
    assert pushed.groups == ("teachers/third",)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    pull(at(shared), tmp_path / "all.zarr", Wanted())
    assert open_cache(tmp_path / "all.zarr").teacher_names == ["second", "synthetic", "third"]
    assert verify(tmp_path / "all.zarr").count == 0


@pytest.mark.slow
def test_what_a_part_lacks_is_not_dumped_into_it_again(shared, tmp_path):
    part(shared, tmp_path, teachers=("second",))
    with pytest.raises(MissingFileError, match=r"teachers/synthetic of .* is not in this partial copy"):
        add_teacher(tmp_path / "part.zarr", "synthetic")


def test_a_part_is_not_pushed_to_where_the_rest_is_not(shared, tmp_path):
    part(shared, tmp_path, teachers=("second",))
    with pytest.raises(IncompleteCacheError, match="is a partial copy without teachers/synthetic"):
        push(tmp_path / "part.zarr", at(str(tmp_path / "elsewhere.zarr")))
    assert not (tmp_path / "elsewhere.zarr" / "manifest.json").exists()


def test_what_a_part_tells_of_whence_it_came_is_left_behind_by_push(shared, tmp_path):
    part(shared, tmp_path, teachers=("second",))
    add_teacher(tmp_path / "part.zarr", "third")
    assert Partial.read(tmp_path / "part.zarr").source.startswith(shared)
    push(tmp_path / "part.zarr", at(shared))
    told = str(tmp_path).encode()
    assert not (tmp_path / "shared.zarr" / PARTIAL).exists()
    files = [path for path in (tmp_path / "shared.zarr").rglob("*") if path.is_file()]
    assert not [path for path in files if told in path.read_bytes()]


def test_a_part_names_no_user_of_the_place_it_came_from(shared, tmp_path):
    remote = at(shared)
    remote.location = Location.parse("sftp://anna@host/x.zarr")
    pull(remote, tmp_path / "part.zarr", Wanted(teachers=("second",)))
    assert Partial.read(tmp_path / "part.zarr").source.startswith("sftp://host/x.zarr@sha256:")
    files = [path for path in (tmp_path / "part.zarr").rglob("*") if path.is_file()]
    assert not [path for path in files if b"anna" in path.read_bytes()]


@pytest.mark.slow
def test_a_part_tells_in_info_what_it_lacks(shared, tmp_path, capsys):
    part(shared, tmp_path, teachers=("second",))
    assert run_cli(build_parser(), ["info", str(tmp_path / "part.zarr")]) == 0
    assert "lacks teachers/synthetic" in capsys.readouterr().out


def test_a_pull_by_pin_tells_what_of_the_folder_is_no_part_of_the_pinned_state(
    shared, cache, tmp_path, capsys
):
    pin = open_cache(cache).digest
    part(shared, tmp_path, teachers=("second",), signals=("frame_relevance",))
    root = add_teacher(tmp_path / "part.zarr", "third")
    pulled = pull(at(f"{shared}@sha256:{pin}"), root, Wanted(teachers=("second",)))
    assert pulled.beyond == ("teachers/third",)
    assert sorted(open_cache(root).teacher("second").signals) == sorted(
        open_cache(cache).teacher("second").signals
    )
    assert run_cli(build_parser(), ["pull", f"{shared}@sha256:{pin}", str(root)]) == 0
    assert f"no part of {shared}@sha256:{pin}: teachers/third\n" in capsys.readouterr().out
    assert open_cache(root).teacher_names == ["second", "synthetic", "third"]
    push(root, at(shared))
    assert pull(at(shared), root, Wanted()).beyond == ()
