"""An estimate counts what a dump will write, measures what it will take, and refuses what does not fit."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest

from store.cli import run_cli
from store.encodings import INT8
from store.kept_pixels import KeptPixels
from store.layout import TableCounts
from store.reader import open_cache
from store.signals import SignalSpec
from store.writer import CacheWriter
from teacher_dump.__main__ import build_parser
from teacher_dump.dump import dump
from teacher_dump.estimates.estimating import estimate_sizes, estimates
from teacher_dump.estimates.layout_table import SIZES, layout_rows
from teacher_dump.estimates.measured_batch import MeasuredBatch, StageCosts
from teacher_dump.estimates.payback import live_backbone, payback
from teacher_dump.estimates.phase_seconds import pipelined_s
from teacher_dump.estimates.planned_bytes import readable
from teacher_dump.estimates.stopwatch import Spent
from teacher_dump.opened_dump import OpenedDump
from teacher_dump.pairs.costs import choose_layout, layout_costs
from teacher_dump.pairs.layouts import BatchOptions, PairOptions
from teacher_dump.plan import StorageOptions
from teacher_dump.planned_dump import planned_dumps
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers import demo, xclip
from teacher_dump.teachers.base import TeacherOptions
from teacher_dump.workers.executors import SerialExecutor
from tests.store.test_writer_and_reader import tree
from tests.teacher_dump.colour_teacher import ColourTeacher, colour_samples

SETTINGS = DumpSettings(batch_videos=2, batch_texts=3, threads=1, shard_rows=4, decoders=1)
SERIAL = SerialExecutor()
TOLERATED = 0.05


def estimate(root, samples, teacher, settings, workers=1):
    """Of a dump of one part."""
    (found,) = estimates(root, OpenedDump(samples, teacher, settings, SERIAL, {}), workers)
    return found


def stored_bytes(root, below=""):
    files = (path for path in (root / below).rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if "reports" not in path.parts)


@pytest.mark.parametrize(
    ("teacher", "storage", "pairs"),
    [
        (lambda: demo.load(TeacherOptions()), StorageOptions(), PairOptions()),
        (
            lambda: ColourTeacher(layer=True),
            StorageOptions({"vit_layers": INT8}, "pool2x2", None, KeptPixels("raw")),
            PairOptions(plan=BatchOptions(2, 3)),
        ),
        (
            lambda: ColourTeacher(layer=True),
            StorageOptions({"text_embedding": INT8}, "all", 12, KeptPixels("jpeg", 90)),
            PairOptions(topk=3),
        ),
    ],
)
def test_bytes_are_those_of_the_finished_cache(clips, tmp_path, teacher, storage, pairs):
    settings, samples = replace(SETTINGS, storage=storage, pairs=pairs), colour_samples(clips)
    root = tmp_path / "c.zarr"
    measures = 1 if storage.pixels is not None and storage.pixels.quality else None
    found = estimate(root, samples, teacher(), settings, measures)
    assert not root.exists()
    cache = dump(root, samples, teacher(), settings, {})
    reader = cache.teacher(cache.teacher_names[0])
    assert set(found.bytes.signals) == set(reader.signals)
    for name, size in reader.bytes_by_signal.items():
        assert found.bytes.signals[name] == pytest.approx(size, rel=TOLERATED), name
    assert found.bytes.total == found.bytes_left == pytest.approx(stored_bytes(root), rel=TOLERATED)


def test_seconds_memory_and_worth_are_measured_on_a_batch(clips, tmp_path):
    found = estimate(tmp_path / "c.zarr", colour_samples(clips), demo.load(TeacherOptions()), SETTINGS)
    assert set(found.seconds) == {"videos", "texts", "relevance", "pairs", "teacher"}
    assert all(seconds > 0 for seconds in found.seconds.values())
    cost = found.measured.of_video
    assert min(cost.decode_s, cost.forward.clock_s, cost.encode.clock_s, cost.write.clock_s) > 0
    assert 1e8 < found.memory_bytes < 1e10
    assert found.payback.live_s > 0
    assert found.backbone.forward_s == cost.forward.clock_s
    printed = "\n".join(found.lines())
    for word in (
        "in all",
        "free",
        "time left",
        "memory at its peak",
        "pair scores: dense",
        "epochs",
        "vit_layers",
    ):
        assert word in printed
    assert json.loads(json.dumps(found.to_dict()))["fits"]


def test_neither_estimate_nor_dry_run_writes_anything(clips, tmp_path, capsys):
    table = table_of(clips)
    here = ["--dataset", "table", "--data", table, "--cache", tmp_path / "c.zarr", "--decoders", 1]
    before = tree(clips)
    assert run("estimate", *here) == 0
    assert "time left" in capsys.readouterr().out
    assert run("dump", *here, "--dry-run") == 0
    assert "demo/videos/0" in capsys.readouterr().out
    assert run("dump", *here, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["tasks"][0]["phase"] == "videos"
    assert list(tmp_path.iterdir()) == []
    assert tree(clips) == before


def table_of(clips):
    path = clips / "table.csv"
    rows = [
        f"{video.name},a clip in {video.stem.partition('_')[2]},train"
        for video in sorted(clips.glob("*.mp4"))
    ]
    path.write_text("\n".join(["video,text,split", *rows]) + "\n")
    return path


def run(*words):
    return run_cli(build_parser(), [*map(str, words)])


def test_the_planned_tasks_are_those_that_run(clips, tmp_path, monkeypatch):
    ran, commit = [], CacheWriter.commit
    monkeypatch.setattr(CacheWriter, "commit", lambda self, done: (ran.append(done.task), commit(self, done)))
    settings = replace(SETTINGS, pairs=PairOptions(plan=BatchOptions(2, 2)))
    (planned,) = planned_dumps(tmp_path / "c.zarr", colour_samples(clips), ColourTeacher(), settings, SERIAL)
    dump(tmp_path / "c.zarr", colour_samples(clips), ColourTeacher(), settings, {})
    assert ran == [task.name for task in planned.tasks]


def test_on_resume_it_says_what_remains(clips, tmp_path, monkeypatch):
    root, samples, teacher = tmp_path / "c.zarr", colour_samples(clips), ColourTeacher()
    whole = estimate(root, samples, teacher, SETTINGS, None)
    commit, counted = CacheWriter.commit, []

    def stop_early(self, done):
        counted.append(done.task)
        if len(counted) > 3:
            raise KeyboardInterrupt
        commit(self, done)

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "commit", stop_early)
        with pytest.raises(KeyboardInterrupt):
            dump(root, samples, teacher, SETTINGS, {})
    rest = estimate(root, samples, teacher, SETTINGS)
    assert len(rest.planned.done) == 3
    assert rest.seconds["videos"] == 0
    assert rest.seconds["pairs"] > 0
    assert rest.bytes.total == whole.bytes.total
    assert rest.bytes_left < whole.bytes_left / 2
    dump(root, samples, teacher, SETTINGS, {})
    done = estimate(root, samples, teacher, SETTINGS)
    assert done.bytes_left == 0
    assert done.seconds is None


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(clips, tmp_path, capsys, monkeypatch):
    room = 250_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 0, room))
    here = ["--dataset", "table", "--data", table_of(clips), "--cache", tmp_path / "c.zarr"]
    here += ["--layers", "0,1,2"]
    assert run("dump", *here) == 2
    refused = capsys.readouterr().err
    assert f"{readable(room)} are free" in refused
    assert re.search(r"these would fit: .*--encoding vit_layers=int8 --tokens pool2x2 \(\d+ KB\)", refused)
    assert list(tmp_path.iterdir()) == []
    assert run("estimate", *here) == 1
    told = capsys.readouterr().out
    assert "it does not fit" in told
    for way in ("--layers 2", "--encoding vit_layers=int8", "--tokens pool2x2"):
        assert way in told


def test_a_disk_on_which_nothing_fits_is_told_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 0, 1000))
    asked = ["--teacher", "xclip", "--videos", 10_000, "--texts", 200_000, "--cache", tmp_path / "c.zarr"]
    assert run("estimate", *asked) == 1
    assert "--plan batch=240,epochs=5" in capsys.readouterr().out


@pytest.mark.slow
def test_what_would_fit_fits(clips, tmp_path, monkeypatch):
    """The bytes of an alternative are those of a dump with its options."""
    samples, teacher = colour_samples(clips), ColourTeacher(layer=True)
    found = estimate(tmp_path / "a.zarr", samples, teacher, SETTINGS, None)
    (pooled,) = [a for a in found.others if a.options == "--encoding vit_layers=int8 --tokens pool2x2"]
    chosen = replace(SETTINGS, storage=StorageOptions({"vit_layers": INT8}, "pool2x2"))
    dump(tmp_path / "b.zarr", samples, teacher, chosen, {})
    assert pooled.bytes == pytest.approx(stored_bytes(tmp_path / "b.zarr"), rel=TOLERATED)


def test_sizes_are_reckoned_without_a_dataset(tmp_path, capsys):
    assert run("estimate", "--teacher", "xclip", "--videos", 10_000, "--texts", 200_000, "--json",
               "--cache", tmp_path / "c.zarr") in (0, 1)  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"]["signals"]["video_text_logits"] == pytest.approx(2 * 10_000 * 200_000, rel=0.01)
    assert told["bytes"]["signals"]["vit_layers/11"] == pytest.approx(10_000 * 12 * 50 * 768 * 2, rel=0.01)
    assert told["seconds"] is None
    assert run("estimate", "--teacher", "clip4clip", "--videos", 1000, "--texts", 1000, "--layers", "3",
               "--frames", 8, "--words", 20, "--json", "--cache", tmp_path / "c.zarr") in (0, 1)  # fmt: skip
    asked = json.loads(capsys.readouterr().out)["bytes"]["signals"]
    assert asked["vit_layers/3"] == pytest.approx(1000 * 8 * 50 * 768 * 2, rel=0.01)
    assert asked["word_embedding"] == pytest.approx(1000 * 20 * 512 * 2, rel=0.01)
    assert "vit_layers/11" not in asked
    assert run("estimate", "--teacher", "xclip", "--videos", 10, "--texts", 10, "--words", 20) == 2
    assert "takes no --words" in capsys.readouterr().err
    assert run("estimate", "--videos", 10) == 2
    assert "--videos and --texts go together" in capsys.readouterr().err


def test_more_layers_than_a_disk_holds_are_told_for_all_of_kinetics(tmp_path):
    teacher = xclip.tiny(0)
    teacher.signals = (SignalSpec("vit_layers/0", {"R": 1, "M": 8, "L": 257, "D": 1024}),)
    found = estimate_sizes(tmp_path / "c.zarr", teacher, TableCounts(240_000, 400), SETTINGS)
    assert found.bytes.signals["vit_layers/0"] == pytest.approx(240_000 * 8 * 257 * 1024 * 2, rel=0.01)
    assert not found.fits


def batch(forward_s, read_s, row_bytes=1000, block=None):
    cost = StageCosts(0.01, Spent(forward_s, forward_s), Spent(0.001, 0.001), Spent(0.001, 0.001))
    text = StageCosts(0.0, Spent(0.0, 0.0))
    return MeasuredBatch(
        8,
        8,
        cost,
        text,
        1.0,
        None,
        block,
        (32, 256),
        None,
        row_bytes,
        read_s,
        read_s / 10,
        None,
        0,
        0.0,
        0,
        0,
    )


LAYER = SignalSpec("vit_layers/0", {"R": 1, "M": 8, "L": 50, "D": 768})


def test_running_the_backbone_live_is_advised_where_reading_takes_longer():
    stored = {LAYER.name: (LAYER, 1_000_000)}
    slow_disk = live_backbone(stored, batch(forward_s=0.002, read_s=0.02), 1000, memory_bytes=0)
    assert slow_disk.is_cheaper
    (line,) = slow_disk.lines({"--encoding vit_layers=int8": 500_000})
    assert "RUNNING THE BACKBONE LIVE IS CHEAPER" in line
    assert "--encoding vit_layers=int8 (500 KB)" in line
    slow_teacher = live_backbone(stored, batch(forward_s=0.2, read_s=0.02), 1000, memory_bytes=0)
    assert not slow_teacher.is_cheaper
    assert "stored ones pay" in slow_teacher.lines({})[0]


def test_what_stays_in_memory_is_read_at_its_speed():
    stored = {LAYER.name: (LAYER, 1_000_000)}
    cold, warm = (
        live_backbone(stored, batch(0.002, 0.02), 1000, memory_bytes) for memory_bytes in (0, 1 << 30)
    )
    assert warm.read_s == pytest.approx(cold.read_s / 10)


def test_a_cache_pays_once_the_epochs_saved_what_the_dump_took():
    found = payback(100.0, batch(0.2, 0.1), rows=100, student_batch=240, pair_bytes=0, is_warm=False)
    assert (found.live_s, found.read_s) == (pytest.approx(20), pytest.approx(10))
    assert found.epochs == pytest.approx(10)
    assert payback(100.0, batch(0.1, 0.2), 100, 240, 0, is_warm=False).epochs is None


DENSE_SIGNALS = (SignalSpec("video_text_logits", {}),)


@pytest.mark.parametrize(
    ("signals", "cross", "size", "pair_s", "encoding_s", "free", "layout"),
    [
        ((SignalSpec("text_embedding", {"D": 4}),), False, (9, 9), None, None, None, "factored"),
        (DENSE_SIGNALS, False, (9_000, 180_000), 1e-7, 3600.0, 1 << 40, "dense"),
        (DENSE_SIGNALS, False, (9_000, 180_000), 1e-5, 3600.0, 1 << 40, "planned"),
        (DENSE_SIGNALS, False, (9_000, 180_000), 1e-7, 3600.0, 1 << 30, "planned"),
        (DENSE_SIGNALS, False, (10_000_000, 10_000_000), None, None, None, "planned"),
        (DENSE_SIGNALS, True, (9_000, 180_000), 1e-3, 3600.0, 1 << 40, "topk"),
        (DENSE_SIGNALS, True, (100, 100), 1e-3, 3600.0, 1 << 40, "dense"),
    ],
)
def test_the_layout_follows_from_cost(signals, cross, size, pair_s, encoding_s, free, layout):
    costs = layout_costs(*size, size[1], pair_s=pair_s)
    choice = choose_layout(signals, cross, costs, encoding_s, free)
    assert choice.layout == layout
    assert choice.why


def test_planned_scores_grow_with_texts_and_not_with_videos():
    def sizes(videos, texts):
        return {cost.layout: cost.bytes for cost in layout_costs(videos, texts, texts)}

    one, more_videos, more_texts = sizes(24_000, 24_000), sizes(48_000, 24_000), sizes(24_000, 48_000)
    assert more_videos["dense"] == pytest.approx(2 * one["dense"], rel=0.01)
    for layout in ("planned", "topk"):
        assert more_videos[layout] == one[layout]
        assert more_texts[layout] == pytest.approx(2 * one[layout], rel=0.05)


def test_the_table_tells_what_the_design_says_of_msrvtt():
    rows = dict(layout_rows(SIZES[0]))
    assert rows["dense logits"] == pytest.approx(10_000 * 200_000 * 2, rel=0.01)
    assert rows["planned logits, b=240, E=5"] == pytest.approx(180_000 * 240 * 5 * 2, rel=0.01)
    assert rows["2 ViT layers, int8"] == pytest.approx(rows["2 ViT layers, float16"] / 2, rel=0.01)


def test_the_table_in_the_docs_is_the_one_that_is_printed(capsys):
    from tests.conftest import ROOT

    assert run("estimate", "--table") == 0
    shown = (ROOT / "docs/estimate.md").read_text()
    for line in capsys.readouterr().out.splitlines():
        assert line.strip() in shown


def test_stages_that_work_at_the_same_time_take_as_long_as_the_slowest():
    assert pipelined_s((1, 2, 1), 1, 0, 1) == 4
    assert pipelined_s((1, 2, 1), 10, 0, 1) == 22
    assert pipelined_s((1, 2, 1), 10, 6, 2) == 30


def test_a_finished_cache_needs_nothing_more(clips, tmp_path, capsys):
    here = ["--dataset", "table", "--data", table_of(clips), "--cache", tmp_path / "c.zarr", "--decoders", 1]
    assert run("dump", *here, "--no-measure") == 0
    assert capsys.readouterr().out.startswith("estimate: demo over 8 videos and 8 texts into c.zarr\n")
    assert run("estimate", *here) == 0
    assert "0 bytes to write" in capsys.readouterr().out
    assert open_cache(tmp_path / "c.zarr").teacher_names == ["demo"]


@pytest.fixture(scope="module")
def finished(clips, tmp_path_factory):
    """Options of a dump that is done."""
    root = tmp_path_factory.mktemp("finished") / "c.zarr"
    here = ["--dataset", "table", "--data", table_of(clips), "--cache", root, "--decoders", 1]
    assert run("dump", *here, "--no-measure") == 0
    return here


COMMANDS = pytest.mark.parametrize("command", [["estimate"], ["dump", "--dry-run"], ["dump"]])


@COMMANDS
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--dtype", "bfloat16"], "teacher 'demo' in c.zarr differs in identity.dtype"),
        (["--name", "../x"], "teacher '../x' can't name a folder"),
        (["--name", "again", "--keep-pixels", "raw"], "the kept pixels of view"),
    ],
)
def test_what_a_dump_refuses_is_refused_before_anything_is_estimated(
    finished, capsys, command, options, told
):
    capsys.readouterr()
    assert run(*command, *finished, *options) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.out == ""


@COMMANDS
def test_a_folder_of_something_else_is_refused_before_any_estimate(finished, tmp_path, capsys, command):
    (tmp_path / "letter.txt").write_text("dear")
    capsys.readouterr()
    assert run(*command, *finished, "--cache", tmp_path) == 2
    printed = capsys.readouterr()
    assert "holds 'letter.txt' and is no cache" in printed.err
    assert printed.out == ""


def test_a_batch_plan_that_the_numbers_do_not_fill_is_refused(capsys):
    words = ["--teacher", "xclip", "--videos", 10, "--texts", 100, "--plan", "batch=240,epochs=5"]
    assert run("estimate", *words) == 2
    assert "a batch of 240 needs as many training rows, split 'train' has 100" in capsys.readouterr().err
