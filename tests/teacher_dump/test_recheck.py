"""A recheck holds while nothing changed, and names what changed when something did."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from store.cli import run_cli
from store.errors import IdentityError, MissingFileError
from store.reader import open_cache
from store.verify import verify
from teacher_dump.__main__ import build_parser
from teacher_dump.checkpoints import seeded
from teacher_dump.dump import dump
from teacher_dump.models.clip_towers import TowerSizes
from teacher_dump.models.tokens import Tokenizer
from teacher_dump.models.xclip_scores import XClip, XClipSizes
from teacher_dump.pairs.layouts import BatchOptions, PairOptions
from teacher_dump.plan import StorageOptions
from teacher_dump.rechecks.command import video_files
from teacher_dump.rechecks.comparison import Comparison, same_order
from teacher_dump.rechecks.dumped_options import told_options
from teacher_dump.rechecks.recheck import RecheckSettings, draw, recheck
from teacher_dump.reencode import reencode
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers import demo_albef, xclip
from tests.store.test_writer_and_reader import tree
from tests.teacher_dump.colour_teacher import colour_samples, write_clip

SETTINGS = DumpSettings(batch_videos=3, batch_texts=3, threads=1, decoders=1)
RECHECK = RecheckSettings(sample=8, decoders=1)
DEEP = replace(TowerSizes.tiny(), vision_layers=8, text_layers=8)


def xclip_teacher(seed=0):
    """Deep enough for half precision to show."""
    sizes = XClipSizes(DEEP, frames=4, words=12, temporal_layers=1, positions=8)
    return xclip.teacher_of(seeded(seed, lambda: XClip(sizes)))


@pytest.fixture(scope="module")
def cache(clips, tmp_path_factory):
    root = tmp_path_factory.mktemp("caches") / "colours.zarr"
    return dump(root, colour_samples(clips), xclip_teacher(), SETTINGS, {})


def rechecked(cache, teacher, folder, settings=RECHECK):
    paths = {row: folder / name for row, name in enumerate(cache.video_ids)}
    return recheck(cache.teacher("xclip"), teacher, paths, settings)


def suspected(found):
    return [suspicion.what for suspicion in found.suspicions]


def test_the_same_teacher_on_the_same_files_says_the_same(cache, clips):
    found = rechecked(cache, xclip_teacher(), clips)
    assert found.holds
    assert found.suspicions == []
    assert {c.signal for c in found.comparisons} == set(cache.teacher("xclip").signals)
    assert all(c.rows for c in found.comparisons)
    assert found.identity == {}


def test_the_sample_is_as_large_as_asked_and_drawn_by_the_seed():
    usable = np.arange(50) % 5 > 0

    def drawn(seed):
        return draw(np.random.default_rng(seed), np.arange(50), usable, 12).tolist()

    assert len(set(drawn(1))) == 12
    assert usable[drawn(1)].all()
    assert drawn(1) == drawn(1) != drawn(2)
    assert len(draw(np.random.default_rng(0), np.arange(50), usable, 100)) == 40


def test_other_weights_are_suspected_where_videos_and_texts_deviate(cache, clips):
    found = rechecked(cache, xclip_teacher(seed=1), clips)
    assert suspected(found) == ["weights"]
    assert "identity differs in weights_sha256" in found.suspicions[0].why


def test_preprocessing_is_suspected_where_videos_deviate_on_the_same_frames(cache, clips):
    teacher = xclip_teacher()
    teacher._described = {**teacher._described, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    found = rechecked(cache, teacher, clips)
    assert suspected(found) == ["preprocessing"]
    assert "frame_embedding" in found.suspicions[0].why
    assert "text_embedding" not in found.suspicions[0].why
    assert "mean[0]" in found.suspicions[0].why or "mean" in found.suspicions[0].why


def test_the_tokenizer_is_suspected_where_only_texts_deviate(cache, clips):
    teacher, own = xclip_teacher(), xclip_teacher().tokenizer
    teacher.tokenizer = Tokenizer(
        lambda texts: own.ids_of([f"a photo of {text}" for text in texts]),
        own.identity,
        own.words,
        own.valid_of,
    )
    found = rechecked(cache, teacher, clips)
    assert suspected(found) == ["tokenizer"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_precision_is_suspected_where_all_deviates_a_little(cache, clips, dtype):
    found = rechecked(cache, xclip_teacher().with_dtype(dtype), clips)
    assert suspected(found) == ["dtype"]
    assert "identity differs in dtype" in found.suspicions[0].why


def test_frames_are_suspected_where_files_changed_and_nothing_else_is(cache, clips, tmp_path):
    for path in clips.iterdir():
        shutil.copy(path, tmp_path)
    write_clip(tmp_path / cache.video_ids[3], ["blue", "red"])
    (tmp_path / cache.video_ids[5]).write_bytes(b"this is no video")
    found = rechecked(cache, xclip_teacher(), tmp_path)
    assert suspected(found) == ["frames"]
    assert sorted(found.other_frames) == [3, 5]
    assert "other pictures" in found.other_frames[3]
    assert "does not decode here" in found.other_frames[5]
    assert not found.holds


def test_frames_that_lie_later_are_told_by_their_times(cache, clips, tmp_path):
    for path in clips.iterdir():
        shutil.copy(path, tmp_path)
    write_clip(tmp_path / cache.video_ids[0], ["red", "red", "grey", "grey", "grey", "grey", "grey"])
    found = rechecked(cache, xclip_teacher(), tmp_path)
    assert suspected(found) == ["frames"]
    assert list(found.other_frames) == [0]


def test_both_are_named_where_frames_and_weights_changed(cache, clips, tmp_path):
    for path in clips.iterdir():
        shutil.copy(path, tmp_path)
    write_clip(tmp_path / cache.video_ids[3], ["blue", "red"])
    assert suspected(rechecked(cache, xclip_teacher(seed=1), tmp_path)) == ["frames", "weights"]


def test_what_scores_is_suspected_where_scores_alone_deviate(cache, clips):
    teacher = xclip_teacher()
    with torch.no_grad():
        teacher.model.clip.logit_scale += 1
    found = rechecked(cache, teacher, clips)
    assert [c.signal for c in found.comparisons if c.deviates] == ["video_text_logits"]
    assert suspected(found) == ["weights"]
    assert "part that scores" in found.suspicions[0].why


@pytest.mark.slow
def test_layers_in_int8_hold_and_show_other_weights(clips, tmp_path):
    chosen = replace(SETTINGS, storage=StorageOptions({"vit_layers": "int8"}))
    cache = dump(tmp_path / "c.zarr", colour_samples(clips), xclip_teacher(), chosen, {})
    assert rechecked(cache, xclip_teacher(), clips).holds
    assert suspected(rechecked(cache, xclip_teacher(seed=1), clips)) == ["weights"]


def test_other_weights_are_suspected_where_the_sample_does_not_show_them(cache, clips):
    teacher = xclip_teacher()
    teacher.model.register_buffer("unused", torch.ones(1))
    found = rechecked(cache, teacher, clips)
    assert not any(c.deviates for c in found.comparisons)
    assert not found.holds
    assert suspected(found) == ["weights"]
    assert "differs in weights_sha256, which the sampled rows do not show" in found.suspicions[0].why


def test_where_the_same_weights_were_had_from_makes_no_other_teacher(cache, clips):
    teacher = xclip_teacher()
    teacher._described = {**teacher._described, "pretrained": "file"}
    found = rechecked(cache, teacher, clips)
    assert list(found.identity) == ["pretrained"]
    assert found.holds
    assert found.suspicions == []


def test_another_kind_of_teacher_is_refused_with_what_differs(cache, clips):
    other = XClip(XClipSizes(replace(TowerSizes.tiny(), embed_dim=128), 4, 12, 1, 8))
    with pytest.raises(IdentityError, match=r"frame_embedding .* this teacher gives"):
        rechecked(cache, xclip.teacher_of(other), clips)


def test_a_folder_without_the_videos_says_which_are_looked_for(cache):
    with pytest.raises(MissingFileError, match="none of the 8 videos"):
        recheck(cache.teacher("xclip"), xclip_teacher(), {}, RECHECK)


def run(*words):
    return run_cli(build_parser(), [*map(str, words)])


@pytest.fixture(scope="module")
def own(clips, tmp_path_factory):
    """The demo's teacher, which the command line can load, over the same clips."""
    from teacher_dump.teachers import demo
    from teacher_dump.teachers.base import TeacherOptions

    folder = tmp_path_factory.mktemp("own")
    dump(folder / "c.zarr", colour_samples(clips), demo.load(TeacherOptions(layers=(1,))), SETTINGS, {})
    return folder / "c.zarr"


def test_the_videos_of_any_dataset_are_found_in_a_folder_by_their_ids(own, clips):
    """Also of one that is read from a table or an official file, which is not in that folder."""
    ids = open_cache(own).video_ids
    for name in ("colours", "table", "msrvtt"):
        cache = SimpleNamespace(dataset={"name": name}, video_ids=ids)
        assert len(video_files(cache, None, clips)) == len(ids)
    with pytest.raises(MissingFileError):
        video_files(cache, "msrvtt", clips)


def test_the_command_writes_its_report_beside_the_data_and_changes_no_digest(own, clips, capsys):
    before, digest = tree(own), open_cache(own).digest
    assert run("recheck", own, "--data", clips, "--sample", 4, "--decoders", 1) == 0
    printed = capsys.readouterr().out
    assert "holds" in printed
    assert open_cache(own).digest == digest
    assert verify(own).count == 0
    after = tree(own)
    assert "recheck" not in after.pop("README.md").decode()
    assert after.pop("croissant.json")
    report = json.loads(after.pop("reports/recheck.json"))
    for name in ("reports/recheck.json", "README.md", "croissant.json"):
        before.pop(name, None)
    assert after == before
    assert report["teachers"]["demo"]["holds"]
    assert set(report["teachers"]["demo"]["signals"]) == set(open_cache(own).teacher("demo").signals)


def test_the_command_exits_1_and_says_what_to_suspect(own, clips, capsys):
    assert run("recheck", own, "--data", clips, "--dtype", "bfloat16", "--decoders", 1) == 1
    printed = capsys.readouterr().out
    assert "suspect dtype" in printed
    assert "identity differs in dtype: stored 'float32', here 'bfloat16'" in printed
    told = json.loads((own / "reports/recheck.json").read_text())["teachers"]["demo"]
    assert told["suspected"][0]["what"] == "dtype"
    assert not told["holds"]


def test_a_teacher_that_the_cache_has_not_is_named(own, clips, capsys):
    assert run("recheck", own, "--data", clips, "--teacher", "xclip") == 2
    assert "unknown teacher 'xclip'" in capsys.readouterr().err


def test_a_teacher_stored_another_way_is_held_to_the_one_that_it_came_from(own, clips, tmp_path, capsys):
    root = shutil.copytree(own, tmp_path / "c.zarr")
    reencode(root, colour_samples(clips), "demo", "small", {"vit_layers": "int8"})
    assert run("recheck", root, "--data", clips, "--teacher", "small", "--decoders", 1) == 0
    assert "identity differs" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("teacher", "changes", "told"),
    [
        ("clip", {"architecture": {"family": "open_clip", "name": "ViT-L-14"}}, {"architecture": "ViT-L-14"}),
        ("clip4clip", {"context_length": 64}, {"words": 64}),
        ("xclip", {"context_length": 32}, {}),
        ("ts2net", {"noise": None, "context_length": 32}, {"words": 32, "variant": "noise-free"}),
        ("ts2net", {"noise": {"samples": 500}, "shifted_blocks": []}, {"variant": "no-shift"}),
        ("albef", {"encoders": "momentum"}, {"variant": "momentum"}),
        ("classes", {"classifier": {"kind": "text", "prompts": ["a {}"]}}, {"prompt": ["a {}"]}),
        ("demo_classes", {"classifier": {"kind": "lda"}}, {"variant": "lda"}),
        ("clip", {"architecture": {"name": 5}, "classifier": {"prompts": [1]}, "dtype": {}}, {}),
    ],
)
def test_what_the_cache_tells_of_a_dump_need_not_be_said_again(teacher, changes, told):
    assert told_options(teacher, changes) == {"dtype": "float32", "variant": "", **told}


def test_a_seed_that_is_none_is_refused(own, capsys):
    with pytest.raises(SystemExit):
        run("recheck", own, "--seed", "-1")
    assert "not a whole number from 0" in capsys.readouterr().err


def test_a_row_that_is_next_to_nothing_is_held_to_the_longest():
    comparison = Comparison("frame_relevance", "pairs", 1e-3)
    comparison.add(np.array([0, 1]), np.array([[1.0, 1.0], [1e-9, 0.0]]), np.array([[1.0, 1.0], [0.0, 1e-9]]))
    assert not comparison.deviates


def test_one_wrong_row_among_many_deviates():
    stored = np.random.default_rng(0).normal(size=(64, 8))
    fresh = stored.copy()
    fresh[17, 3] += 0.01
    comparison = Comparison("text_embedding", "texts", 1e-3)
    comparison.add(np.arange(64), stored, fresh)
    assert comparison.deviating == [17]


def test_numbers_that_are_not_finite_deviate():
    comparison = Comparison("text_embedding", "texts", 1e-3)
    comparison.add(np.arange(2), np.ones((2, 3)), np.array([[1, 1, 1], [1, np.nan, 1]]))
    assert comparison.deviating == [1]
    assert comparison.to_dict()["relative_l2"] is None


def test_rankings_agree_as_far_as_neighbours_hold_their_place():
    stored = np.array([[3.0, 2.0, 1.0]])
    assert same_order(stored, np.array([[30.0, 20.0, 10.0]]), 1e-3) == 1
    assert same_order(stored, np.array([[3.0, 2.0, 2.5]]), 1e-3) == pytest.approx(2 / 3)
    assert same_order(np.array([[3.0, np.nan]]), np.array([[1.0, 9.0]]), 1e-3) == 1


@pytest.mark.slow
def test_planned_and_ranked_pairs_are_scored_anew_and_told_when_the_part_that_scores_changed(clips, tmp_path):
    pairs = PairOptions(plan=BatchOptions(2, 2, k=2), topk=3)
    for root, options in (
        (tmp_path / "a.zarr", pairs),
        (tmp_path / "b.zarr", PairOptions(plan=BatchOptions(2, 2))),
    ):
        chosen = replace(SETTINGS, pairs=options)
        cache = dump(root, colour_samples(clips), xclip_teacher(), chosen, {})
        scores = {name for name in cache.teacher("xclip").signals if "score" in name and "index" not in name}
        same = rechecked(cache, xclip_teacher(), clips)
        assert same.holds
        assert scores <= {c.signal for c in same.comparisons if c.rows}
        teacher = xclip_teacher()
        with torch.no_grad():
            teacher.model.clip.logit_scale += 1
        other = rechecked(cache, teacher, clips)
        assert scores == {c.signal for c in other.comparisons if c.deviates}
        assert suspected(other) == ["weights"]


@pytest.fixture(scope="module")
def matched(clips, tmp_path_factory):
    """What a cross-encoder keeps of the best pairs of batches, and of the splits."""
    pairs = PairOptions(plan=BatchOptions(3, 2, k=2), topk=3, fused_cls=True)
    root = tmp_path_factory.mktemp("matched") / "c.zarr"
    dumped = replace(SETTINGS, pairs=pairs)
    return dump(root, colour_samples(clips), demo_albef.tiny(0), dumped, {})


def match_recheck(matched, teacher, clips):
    paths = {row: clips / name for row, name in enumerate(matched.video_ids)}
    return recheck(matched.teacher("demo_albef"), teacher, paths, RECHECK)


def pair_parts(matched, *parts):
    of_pairs = ("planned_topk/", "topk_scores/")
    names = matched.teacher("demo_albef").signals
    return {name for name in names if name.startswith(of_pairs) and name.endswith(parts)}


def test_every_part_of_a_matched_pair_is_compared(matched, clips):
    found = match_recheck(matched, demo_albef.tiny(0), clips)
    assert found.holds
    compared = {c.signal for c in found.comparisons if c.rows and c.of == "pairs"}
    assert compared == pair_parts(matched, "_score", "_mismatch", "_fused_cls")
    ranked = {c.signal for c in found.comparisons if c.rank_agreement is not None}
    assert ranked == {"topk_scores/text_score", "topk_scores/video_score"}


def test_another_logit_against_a_match_deviates(matched, clips):
    teacher = demo_albef.tiny(0)
    with torch.no_grad():
        teacher.model.itm_head.weight[0] *= -1
        teacher.model.itm_head.bias[0] += 1
    found = match_recheck(matched, teacher, clips)
    assert {c.signal for c in found.comparisons if c.deviates} == pair_parts(matched, "_mismatch")
    assert suspected(found) == ["weights"]
    assert not found.holds


def test_another_fused_token_deviates_where_both_logits_are_the_same(matched, clips):
    teacher = demo_albef.tiny(0)
    match_pairs = teacher.match_pairs

    def turned(videos, texts):
        said = match_pairs(videos, texts)
        return {**said, "fused_cls": -said["fused_cls"]}

    teacher.match_pairs = turned
    found = match_recheck(matched, teacher, clips)
    assert {c.signal for c in found.comparisons if c.deviates} == pair_parts(matched, "_fused_cls")
