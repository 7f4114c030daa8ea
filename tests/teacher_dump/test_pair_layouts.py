"""Pair scores of a dump as batches, as top-k of splits, or dense: what they hold is what the teacher says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from store.errors import IdentityError, InputError, UnknownNameError
from store.inputs.samples import Split, Text
from store.pair_scores import DENSE, FACTORED, PLANNED_TOPK
from store.retrieval_metrics import retrieval_metrics
from store.teacher_report import teacher_report
from store.verify import verify
from store.writer import CacheWriter
from teacher_dump.dump import dump
from teacher_dump.pairs import phases as pair_phases
from teacher_dump.pairs import plan as pair_plan
from teacher_dump.pairs.layouts import BatchOptions, PairOptions, competing_splits, rows_of_split
from teacher_dump.pairs.shortlist import top_k
from teacher_dump.settings import DumpSettings
from teacher_dump.teachers import albef, clip, xclip
from tests.store.test_writer_and_reader import tree
from tests.teacher_dump.colour_teacher import colour_samples

BASE = DumpSettings(batch_videos=3, batch_texts=4, threads=1, shard_rows=3, decoders=1)
BATCHES = BatchOptions(batch=4, epochs=2, seed=3, k=2)
CHOSEN = PairOptions(plan=BATCHES, topk=3, fused_cls=True)


def captioned(folder, broken=()):
    """Eight clips; those of train have two captions each, so that a batch may hold siblings."""
    samples = colour_samples(folder, broken)
    colours = [text.text.split()[-1] for text in samples.texts[:6]]
    more = tuple(Text(f"this shows {colour}", row) for row, colour in enumerate(colours))
    splits = {
        "train": Split(np.arange(6), np.array([*range(6), *range(8, 14)])),
        "test": Split(np.arange(6, 8), np.arange(6, 8)),
    }
    return replace(samples, texts=(*samples.texts, *more), splits=splits)


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    """ALBEF's every pair: what all other layouts are held to."""
    return dump(tmp_path_factory.mktemp("c") / "c.zarr", captioned(clips), albef.tiny(0), BASE, {})


@pytest.fixture(scope="module")
def chosen(clips, tmp_path_factory):
    root = tmp_path_factory.mktemp("c") / "c.zarr"
    return dump(root, captioned(clips), albef.tiny(0), replace(BASE, pairs=CHOSEN), {})


def cosines(teacher, videos, texts):
    """ALBEF's own similarities [V, T] from its stored embeddings, as its evaluation computes them."""
    image = torch.from_numpy(teacher.read_decoded("frame_embedding", videos)[:, 0, 0])
    text = torch.from_numpy(teacher.read_decoded("text_embedding", texts))
    return torch.nn.functional.normalize(image, dim=-1) @ torch.nn.functional.normalize(text, dim=-1).T


def test_a_batchs_best_are_those_of_equation_5_and_their_scores_those_of_equation_6(chosen, whole):
    teacher = chosen.teacher("albef")
    topk, said = teacher.planned_topk, whole.teacher("albef")
    assert topk.batches.steps == 2 * (12 // 4)
    assert not verify(chosen.path).faults
    for step in range(topk.batches.steps):
        video, text = topk.batches.video[step], topk.batches.text[step]
        dual = cosines(teacher, video, text)
        logits, _ = said.pair_scores(video, text)
        texts, videos = topk.texts_of_videos(step), topk.videos_of_texts(step)
        np.testing.assert_array_equal(texts.index, dual.topk(2, dim=1).indices)
        np.testing.assert_allclose(texts.score, np.take_along_axis(logits, texts.index, 1), atol=2e-3)
        columns = torch.stack([column.sort(descending=True, stable=True).indices[:2] for column in dual.T])
        np.testing.assert_array_equal(videos.index, columns)
        np.testing.assert_allclose(videos.score, np.take_along_axis(logits.T, videos.index, 1), atol=2e-3)


def test_the_probability_and_the_fused_cls_of_a_pair_are_what_the_teacher_says_of_it(chosen):
    teacher, model = chosen.teacher("albef"), albef.tiny(0)
    topk = teacher.planned_topk
    video, text = topk.batches.video[0], topk.batches.text[0]
    best = topk.videos_of_texts(0)
    place, rank = 2, 1
    names = {"videos": ("vit_layers/1",), "texts": ("word_embedding", "word_valid")}
    rows = {"videos": video[best.index[place, rank : rank + 1]], "texts": text[place : place + 1]}
    given = {
        side: {name: torch.from_numpy(teacher.read_decoded(name, rows[side])) for name in names[side]}
        for side in names
    }
    said = model.match_pairs({"vit_layers/1": given["videos"]["vit_layers/1"][:, 0]}, given["texts"])
    np.testing.assert_allclose(best.probability[place, rank], said["match_probability"][0], atol=1e-3)
    np.testing.assert_allclose(best.fused_cls[place, rank], said["fused_cls"][0], atol=4e-3)
    assert best.fused_cls.shape == (4, 2, model.fused_width)


def test_a_replayed_step_knows_exactly_the_pairs_that_it_scored(chosen):
    teacher = chosen.teacher("albef")
    assert teacher.pair_layout.layout == PLANNED_TOPK
    topk = teacher.planned_topk
    for step in range(topk.batches.steps):
        video, text = topk.batches.video[step], topk.batches.text[step]
        scores, known = teacher.pair_scores(video, text)
        expected = np.zeros((4, 4), dtype=bool)
        np.put_along_axis(expected, topk.texts_of_videos(step).index, True, axis=1)
        np.put_along_axis(expected.T, topk.videos_of_texts(step).index, True, axis=1)
        np.testing.assert_array_equal(known, expected)
        assert (np.isnan(scores) == ~known).all()
    with pytest.raises(InputError, match="are no step of batch plan"):
        topk.step_of(video[::-1], text[::-1])


def test_other_rows_than_a_steps_are_known_where_any_step_scored_them(chosen, whole):
    teacher = chosen.teacher("albef")
    scores, known = teacher.pair_scores(np.arange(8), np.arange(14))
    topk, expected = teacher.planned_topk, np.zeros((8, 14), dtype=bool)
    for step in range(topk.batches.steps):
        of_step = ~np.isnan(topk.known_block(step))
        at = np.nonzero(of_step)
        expected[topk.batches.video[step][at[0]], topk.batches.text[step][at[1]]] = True
    np.testing.assert_array_equal(known, expected)
    dense, _ = whole.teacher("albef").pair_scores(np.arange(8), np.arange(14))
    np.testing.assert_allclose(scores[known], dense[known], atol=2e-3)


def test_whole_batches_are_scored_exactly(clips, tmp_path, whole):
    options = PairOptions(plan=BatchOptions(batch=5, epochs=2))
    root, samples = tmp_path / "c.zarr", captioned(clips, ())
    teacher = dump(root, samples, albef.tiny(0), replace(BASE, pairs=options), {}).teacher("albef")
    batches = teacher.cache.batch_plan("train-b5-e2-s0")
    assert batches.steps == 4
    for video, text in zip(batches.video, batches.text, strict=True):
        scores, known = teacher.pair_scores(video, text)
        assert known.all()
        expected, _ = whole.teacher("albef").pair_scores(video, text)
        np.testing.assert_allclose(scores, expected, atol=2e-3)
    assert "video_text_logits" not in teacher.signals
    assert not verify(root).faults


def test_batches_are_drawn_over_the_videos_that_decoded(clips, tmp_path):
    for path in clips.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    samples = captioned(tmp_path, broken=(1, 4))
    cache = dump(tmp_path / "c.zarr", samples, albef.tiny(0), replace(BASE, pairs=CHOSEN), {})
    batches = cache.teacher("albef").planned_topk.batches
    assert set(batches.video.ravel()) == {0, 2, 3, 5}
    assert batches.steps == 2 * (8 // 4)
    index, _ = cache.teacher("albef").topk_videos
    assert not np.isin(index, (1, 4)).any()
    assert (index[[1, 4, 9, 12]] == -1).all()


def test_a_splits_best_are_reranked_as_albefs_evaluation_does(chosen, whole):
    """The k highest cosines of a row get their match logit; everything else is ranked behind."""
    teacher, said = chosen.teacher("albef"), whole.teacher("albef")
    (of_video, text_score), (of_text, video_score) = teacher.topk_texts, teacher.topk_videos
    for split in ("train", "test"):
        videos, texts = chosen.split(split).video, chosen.split(split).text
        dual, (logits, _) = cosines(teacher, videos, texts), said.pair_scores(videos, texts)
        for rows, index, score, similarity, exact, candidates in (
            (videos, of_video, text_score, dual, logits, texts),
            (texts, of_text, video_score, dual.T, logits.T, videos),
        ):
            k = min(3, len(candidates))
            best = top_k(similarity.numpy(), k)
            for row, places, all_scores in zip(rows, best, exact, strict=True):
                assert set(index[row][:k]) == set(candidates[places])
                assert (index[row][k:] == -1).all()
                np.testing.assert_allclose(score[row][:k], np.sort(all_scores[places])[::-1], atol=2e-3)


def test_the_probability_of_a_kept_pair_is_that_of_its_two_logits(chosen, whole):
    teacher = chosen.teacher("albef")
    videos, texts = chosen.split("train").video, chosen.split("train").text
    said, known = teacher.match_probability(videos, texts)
    index, score = teacher.topk_texts
    mismatch = teacher.read_decoded("topk_scores/text_mismatch", videos)
    for place, row in enumerate(videos):
        at = np.searchsorted(texts, index[row])
        assert known[place, at].all()
        odds = np.exp(score[row].astype(float)) / np.exp(mismatch[place].astype(float))
        np.testing.assert_allclose(said[place, at], odds / (1 + odds), rtol=1e-4)
    assert (np.isnan(said) == ~known).all()
    assert not known.all()
    with pytest.raises(UnknownNameError, match="topk_scores"):
        whole.teacher("albef").match_probability(videos, texts)


def test_the_report_of_reranked_splits_is_that_of_albefs_matrices(chosen, whole):
    """-100 everywhere but for the k best of each row, each direction by its own matrix."""
    teacher, said = chosen.teacher("albef"), whole.teacher("albef")
    told = teacher_report(teacher)["splits"]["test"]
    videos, texts = chosen.split("test").video, chosen.split("test").text
    dual, (logits, _) = cosines(teacher, videos, texts).numpy(), said.pair_scores(videos, texts)
    by_video, by_text = (np.full(logits.shape, -100.0) for _ in range(2))
    for matrix, similarity, score in ((by_video, dual, logits), (by_text.T, dual.T, logits.T)):
        best = top_k(similarity, min(3, similarity.shape[1]))
        np.put_along_axis(matrix, best, np.take_along_axis(score.astype(float), best, 1), 1)
    for way, matrix in (("text_to_video", by_text), ("video_to_text", by_video)):
        assert told[way] == retrieval_metrics(matrix, np.arange(2), chosen.protocol)[way]


def test_only_planned_pairs_make_no_report(clips, tmp_path):
    options = replace(BASE, pairs=PairOptions(plan=BATCHES, topk=2, splits=("train",)))
    cache = dump(tmp_path / "c.zarr", captioned(clips), albef.tiny(0), options, {})
    assert "--topk-splits test" in teacher_report(cache.teacher("albef"))["splits"]["test"]["not_computable"]


def test_of_equal_similarities_the_first_are_chosen():
    scores = np.array([[1.0, 3, 3, 2, 3], [0, 0, 0, 0, 0]])
    assert top_k(scores, 2).tolist() == [[1, 2], [0, 1]]
    assert top_k(scores, 9).tolist() == [[1, 2, 4, 3, 0], [0, 1, 2, 3, 4]]


def test_a_dual_encoder_of_the_same_cache_chooses_the_pairs(clips, tmp_path, whole):
    samples, root = captioned(clips), tmp_path / "c.zarr"
    dual = dump(root, samples, clip.tiny(0), BASE, {}).teacher("clip")
    options = replace(BASE, pairs=PairOptions(plan=BATCHES, shortlist="clip"))
    teacher = dump(root, samples, albef.tiny(0), options, {}).teacher("albef")
    topk = teacher.planned_topk
    for step in range(topk.batches.steps):
        video, text = topk.batches.video[step], topk.batches.text[step]
        similarity, known = dual.pair_scores(video, text)
        assert known.all()
        np.testing.assert_array_equal(topk.texts_of_videos(step).index, top_k(similarity, 2))
        np.testing.assert_array_equal(topk.videos_of_texts(step).index, top_k(similarity.T, 2))
    told = teacher.signals["planned_topk/train-b4-e2-s3/text_index"].attributes["shortlist"]
    assert told["teacher"] == "clip"
    assert len(told["identity_sha256"]) == 64
    own = whole.teacher("albef").cache
    assert own.teacher("albef").pair_layout.layout == DENSE


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop_after", [pytest.param(9, marks=pytest.mark.slow), 13, pytest.param(16, marks=pytest.mark.slow), 17]
)
def test_a_dump_with_chosen_pairs_that_stopped_anywhere_resumes_to_the_same_bytes(
    clips, chosen, tmp_path, monkeypatch, stop_after
):
    samples, root = captioned(clips), tmp_path / "c.zarr"
    commit, counted = CacheWriter.commit, []

    def stop_early(self, done):
        counted.append(done.task)
        if len(counted) > stop_after:
            raise KeyboardInterrupt
        commit(self, done)

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "commit", stop_early)
        with pytest.raises(KeyboardInterrupt):
            dump(root, samples, albef.tiny(0), replace(BASE, pairs=CHOSEN), {})
    cache = dump(root, samples, albef.tiny(0), replace(BASE, pairs=CHOSEN), {})
    assert cache.digest == chosen.digest
    stored, expected = tree(root), tree(chosen.path)
    for files in (stored, expected):
        del files["reports/dump.json"]
    assert stored == expected


def test_once_features_are_stored_only_pairs_are_run(clips, chosen, tmp_path, monkeypatch):
    samples, root = captioned(clips), tmp_path / "c.zarr"
    monkeypatch.setattr(pair_phases.PairPhases, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        dump(root, samples, albef.tiny(0), replace(BASE, pairs=CHOSEN), {})
    monkeypatch.undo()
    for encoder in ("encode_videos", "encode_texts"):
        monkeypatch.setattr(albef.AlbefTeacher, encoder, lambda *_: pytest.fail("encoded again"))
    assert dump(root, samples, albef.tiny(0), replace(BASE, pairs=CHOSEN), {}).digest == chosen.digest


@pytest.mark.slow
def test_another_block_than_the_plan_fixed_is_never_chosen_anew(clips, tmp_path, monkeypatch):
    samples, root = captioned(clips), tmp_path / "c.zarr"
    monkeypatch.setattr(pair_plan, "memory_for_pairs", lambda _: 1 << 16)
    monkeypatch.setattr(pair_phases.PairPhases, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        dump(root, samples, albef.tiny(0), BASE, {})
    monkeypatch.undo()
    told = dump(root, samples, albef.tiny(0), BASE, {}).teacher("albef").plan.execution["pairs"]
    assert told["block_videos"] * told["block_texts"] < 3 * 4
    with pytest.raises(IdentityError, match="block_"):
        dump(root, samples, albef.tiny(0), replace(BASE, pairs=PairOptions(memory_mb=512)), {})


@pytest.mark.slow
def test_a_late_interaction_teacher_has_planned_batches_too(clips, tmp_path):
    samples = captioned(clips)
    dense = dump(tmp_path / "d.zarr", samples, xclip.tiny(0), BASE, {}).teacher("xclip")
    options = replace(BASE, pairs=PairOptions(plan=BATCHES, topk=2))
    teacher = dump(tmp_path / "p.zarr", samples, xclip.tiny(0), options, {}).teacher("xclip")
    scores, known = teacher.pair_scores(np.arange(8), np.arange(14))
    exact, _ = dense.pair_scores(np.arange(8), np.arange(14))
    np.testing.assert_allclose(scores[known], exact[known], rtol=2e-3, atol=2e-3)
    assert teacher.planned_topk.texts_of_videos(0).mismatch is None
    assert dense.pair_layout.layout == DENSE


@pytest.mark.parametrize(
    "words",
    [
        "",
        "batch=4",
        "batch=4,epochs=x",
        "batch=4,epochs=2,speed=9",
        "batch=0,epochs=1",
        "batch=4,epochs=1,k=5",
        "batch=4,epochs=1,name=../up",
        "batch=4,batch=5,epochs=1",
    ],
)
def test_a_plan_that_means_nothing_is_refused(words):
    with pytest.raises(InputError):
        BatchOptions.parse(words)


def test_a_plan_is_read_as_it_is_written():
    assert BatchOptions.parse("batch=240,epochs=5,seed=0,k=11") == BatchOptions(240, 5, 0, "train", 11)
    assert BatchOptions.parse("batch=2,epochs=1").name == "train-b2-e1-s0"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "planned"}, "needs --plan"),
        ({"layout": "topk"}, "needs --topk"),
        ({"layout": "dense", "topk": 3}, "choose"),
        ({"fused_cls": True}, "--fused-cls"),
        ({"shortlist": "clip"}, "--shortlist"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        PairOptions(**options)


def test_a_layout_that_a_teacher_can_not_have_is_refused(clips, tmp_path):
    for teacher, options, words in (
        (xclip.tiny(0), PairOptions(layout=FACTORED), "more than a product"),
        (clip.tiny(0), PairOptions(topk=3), "dual encoder"),
        (xclip.tiny(0), PairOptions(plan=BATCHES, fused_cls=True), "fuses no pairs"),
        (xclip.tiny(0), PairOptions(plan=BatchOptions(40, 1)), "needs as many training rows"),
        (xclip.tiny(0), PairOptions(plan=BatchOptions(4, 1, split="dev")), "no split 'dev'"),
    ):
        with pytest.raises(InputError, match=words):
            dump(tmp_path / "c.zarr", captioned(clips), teacher, replace(BASE, pairs=options), {})


def test_splits_that_share_rows_have_no_common_ranking(clips):
    samples = captioned(clips)
    samples = replace(samples, splits={**samples.splits, "small": Split(np.arange(3), np.arange(3))})
    with pytest.raises(InputError, match="--topk-splits"):
        competing_splits(samples, ())
    assert competing_splits(samples, ("train", "test")) == ("train", "test")


def test_the_rows_of_a_split_are_looked_up_once_a_task_and_not_for_every_block(clips, tmp_path, monkeypatch):
    looked_up = []

    def counted(samples, split):
        looked_up.append(split)
        return rows_of_split(samples, split)

    monkeypatch.setattr(pair_phases, "rows_of_split", counted)
    small = DumpSettings(batch_videos=1, batch_texts=1, threads=1, shard_rows=100, decoders=1)
    dump(tmp_path / "c.zarr", captioned(clips), albef.tiny(0), replace(small, pairs=PairOptions(topk=2)), {})
    assert sorted(looked_up) == ["test", "test", "train", "train"]  # of texts, and of videos
