"""What a teacher's own scores retrieve on each evaluation split, computed from the cache alone.

A wrong checkpoint, wrong frames or a wrong tokenizer show here, as a number below the published one, before
anybody trains on the labels. The report lies in reports/retrieval.json, outside every digest:

    {"teachers": {<teacher>: {"protocol": ..., "splits": {<split>: metrics, or {"not_computable": reason}},
     "expected": {"split", "metric", "published", "found", "holds"}}}}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from store.durable import canonical_json, read_json, write_file
from store.errors import CacheError, DamagedCacheError, InputError
from store.inputs.protocol import RECOGNITION
from store.pair_scores import DENSE, FACTORED, TOPK_SIGNALS, normalised, places_in, pooled
from store.reader import Cache, TeacherReader
from store.retrieval_metrics import TEXT_TO_VIDEO, recognition_summary
from store.streamed_ranks import ROWS_AT_ONCE, ScoreBlock, streamed_metrics, undirected
from store.untrusted import is_of, shown

TRAIN_SPLIT = "train"
REPORT = "retrieval"
UNSCORED = -100.0
"""What ALBEF's `Retrieval.py: evaluation` gives to pairs behind the best K: they rank after all others."""
NOTHING_STATED = "none"
POINTS = 1.0
"""By how many points of R@1 (or top-1) a teacher may differ from what was published of it."""


class NotComputableError(InputError):
    """The cache does not hold the scores that a metric needs."""


def teacher_report(teacher: TeacherReader) -> dict[str, Any]:
    """Metrics of every split but `train`, in plain JSON; a split that can't be computed says why.

    Memory: a block of scores, and K scores for each row of `topk_scores`.
    """
    cache = teacher.cache
    of_split = _recognition if cache.protocol == RECOGNITION else _retrieval
    found: dict[str, Any] = {}
    for split in (name for name in cache.splits if name != TRAIN_SPLIT):
        try:
            found[split] = of_split(teacher, split)
        except InputError as error:
            found[split] = {"not_computable": str(error)}
    return {"protocol": cache.protocol, "splits": found}


def _retrieval(teacher: TeacherReader, split: str) -> dict[str, Any]:
    """As `store.retrieval_metrics`; `left_out` tells how many texts have a video that did not decode."""
    cache = teacher.cache
    text = cache.split(split).text
    text = text[cache.text_video[text] >= 0]
    usable = teacher.video_usable[cache.text_video[text]]
    if not usable.any():
        raise NotComputableError(f"split {split!r} has no caption of a video that decoded")
    left_out, text = int(np.count_nonzero(~usable)), text[usable]
    own, video = cache.text_video[text], cache.split(split).video
    video = np.unique(np.concatenate([video[teacher.video_usable[video]], own]))
    number_of: dict[str, int] = {}
    keys = [number_of.setdefault(cache.texts[row], len(number_of)) for row in text]
    scores = _scores(teacher, split, video, text)
    metrics = streamed_metrics(scores, len(video), np.searchsorted(video, own), cache.protocol, keys)
    return {**metrics, "left_out": left_out}


def _scores(teacher: TeacherReader, split: str, video: np.ndarray, text: np.ndarray) -> ScoreBlock:
    """By which the rows `video` [V] and `text` [T] of a split rank each other."""
    if set(TOPK_SIGNALS) <= set(teacher.signals):
        return _reranked(teacher, split, video, text)
    if teacher.pair_layout.layout in (DENSE, FACTORED):
        return undirected(lambda videos, texts: teacher.pair_scores(video[videos], text[texts])[0])
    raise NotComputableError(
        f"pair scores are {teacher.pair_layout.layout}: nobody scored every pair of split {split!r}; "
        f"dump with --topk 128 --topk-splits {split} as well"
    )


def _reranked(teacher: TeacherReader, split: str, video: np.ndarray, text: np.ndarray) -> ScoreBlock:
    """Each direction by its own K best, what lies behind them at UNSCORED, as ALBEF is evaluated."""
    splits = teacher.signals[TOPK_SIGNALS[0]].attributes.get("splits", [])
    if split not in splits:
        raise NotComputableError(
            f"topk_scores are of {', '.join(map(str, splits))}; dump with --topk-splits {split} as well"
        )

    def block(videos: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        by_text = _filled(teacher.topk_videos, text[texts], video[videos]).T
        return by_text, _filled(teacher.topk_texts, video[videos], text[texts])

    return block


def _filled(ranked: tuple[np.ndarray, np.ndarray], rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """float32 [N, C]: the scores that the rankings of `rows` [N] give to `candidates` [C]."""
    index, score = (values[rows] for values in ranked)
    place, found = places_in(candidates, index.ravel())
    row = np.repeat(np.arange(len(rows)), index.shape[1])
    block = np.full((len(rows), len(candidates)), UNSCORED, dtype=np.float32)
    block[row[found], place[found]] = score.ravel()[found]
    return block


def _recognition(teacher: TeacherReader, split: str) -> dict[str, Any]:
    """As `store.retrieval_metrics`; `left_out` tells how many videos of a class did not decode.

    The probabilities of a video's renditions are averaged. Of several prompts: CLIP's ensemble of embeddings
    where scores are factored, else the mean of their logits.
    """
    cache = teacher.cache
    video = cache.split(split).video
    video = video[cache.video_class[video] >= 0]
    usable = teacher.video_usable[video]
    if not usable.any():
        raise NotComputableError(f"split {split!r} has no video with a class that decoded")
    left_out, video = int(np.count_nonzero(~usable)), video[usable]
    rows = np.flatnonzero(cache.text_video < 0)
    text_PC = rows.reshape(max(len(cache.dataset["prompts"]), 1), -1)
    label = np.searchsorted(rows, cache.video_class[video]) % text_PC.shape[1]
    probability = _class_probability(teacher, split, text_PC)
    ranks = []
    for start in range(0, len(video), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        found = probability(video[some])
        own = found[np.arange(len(found)), label[some]]
        ranks.append(np.count_nonzero(~(found < own[:, np.newaxis]), axis=1))
    return {**recognition_summary(np.concatenate(ranks), label), "left_out": left_out}


def _class_probability(
    teacher: TeacherReader, split: str, text_PC: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """From video rows [V] to the mean probability [V, C] over their renditions, float64."""
    layout = teacher.pair_layout
    prompts, classes = text_PC.shape
    if layout.layout == DENSE:
        flat = text_PC.ravel()

        def stored(videos: np.ndarray) -> np.ndarray:
            logits = teacher.pair_scores(videos, flat)[0].astype(np.float64)
            return softmax(logits.reshape(len(videos), prompts, classes).mean(axis=1))

        return stored
    if layout.layout != FACTORED:
        raise NotComputableError(f"nobody scored split {split!r} against all classes ({layout.layout})")
    assert layout.video_signal is not None
    assert layout.text_signal is not None
    assert layout.logit_scale is not None
    signal, scale = layout.video_signal, layout.logit_scale
    embedding = normalised(teacher.read_decoded(layout.text_signal, text_PC.ravel()))
    class_CD = normalised(embedding.reshape(prompts, classes, -1).mean(axis=0))

    def computed(videos: np.ndarray) -> np.ndarray:
        frames_VRMD = teacher.read_decoded(signal, videos)
        probabilities = [
            softmax(scale * (pooled(frames_VRMD[:, r], teacher.frame_valid[videos, r]) @ class_CD.T))
            for r in range(teacher.view.renditions)
        ]
        return np.asarray(np.mean(probabilities, axis=0))

    return computed


def softmax(logits_VC: np.ndarray) -> np.ndarray:
    """float64, over the last axis."""
    shifted = logits_VC.astype(np.float64) - logits_VC.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def parse_expectation(words: str) -> tuple[str | None, float] | None:
    """ "45.3" or "val=45.3": (split or None, percent), "none": None; raises InputError for anything else."""
    if words == NOTHING_STATED:
        return None
    split, _, number = words.rpartition("=")
    try:
        percent = float(number)
    except ValueError:
        percent = math.nan
    if not 0 <= percent <= 100:
        raise InputError(
            f"--expect-r1 wants a percentage, e.g. 45.3 or val=45.3, or {NOTHING_STATED}, not {words!r}"
        )
    return split or None, percent


def expected_split(splits: Iterable[str], wanted: str | None) -> str:
    """The split that an expectation is about: "test" if not said, or the only one to evaluate on.

    Raises InputError where there is no such split.
    """
    there = [name for name in splits if name != TRAIN_SPLIT]
    chosen = wanted or (there[0] if len(there) == 1 else "test")
    if chosen not in there:
        raise InputError(
            f"--expect-r1: there is no evaluation split {chosen!r}, there are {', '.join(there) or 'none'}; "
            "name one: --expect-r1 SPLIT=45.3"
        )
    return chosen


def compared(report: dict[str, Any], split: str | None, published: float) -> dict[str, Any]:
    """`report` with what was published beside what was found: R@1 from text to video, or top-1.

    Raises InputError as `expected_split` does.
    """
    chosen = expected_split(report["splits"], split)
    told = report["splits"][chosen]
    metric, found = "top-1", told.get("top-1")
    if report["protocol"] != RECOGNITION:
        metric, found = "text_to_video R@1", told.get(TEXT_TO_VIDEO, {}).get("R@1")
    holds = found is not None and abs(found - published) <= POINTS
    expected = {"split": chosen, "metric": metric, "published": published, "found": found, "holds": holds}
    return {**report, "expected": expected}


def complaint(report: dict[str, Any]) -> str | None:
    """Why nobody should train on this teacher, in one line; None where nothing speaks against it."""
    expected = report.get("expected")
    if expected is None or expected["holds"]:
        return None
    where = f"{expected['metric']} on {expected['split']!r}"
    if expected["found"] is None:
        reason = report["splits"][expected["split"]].get("not_computable", "it was not measured")
        return f"{where}: published {expected['published']:.1f}, not computable here: {reason}"
    return (
        f"{where} is {expected['found']:.1f}, published is {expected['published']:.1f}: more than {POINTS:g} "
        "point apart. Suspect the checkpoint, the frames (view), the preprocessing or the split before "
        "training on these labels; a number that was stated by mistake is withdrawn by --expect-r1 none"
    )


def stored_reports(cache: Cache) -> dict[str, Any]:
    """What was reported of the cache's teachers, by name; {} if nothing was.

    Raises DamagedCacheError for a report that can't be read: a teacher that failed in it must not pass.
    """
    try:
        reports = read_json(cache.reports_dir / f"{REPORT}.json")["teachers"]
    except FileNotFoundError:
        return {}
    except (CacheError, OSError, KeyError, TypeError) as error:
        raise _unreadable(cache, f"{type(error).__name__}: {error}") from None
    if not isinstance(reports, dict):
        raise _unreadable(cache, "it lists no teachers")
    return reports


def _unreadable(cache: Cache, reason: str) -> DamagedCacheError:
    return DamagedCacheError(
        f"reports/{REPORT}.json of {cache.path.name} can't be read ({reason}), so what it says against a "
        "teacher is lost; it is only a report: delete it and make it anew, with the published number if one "
        "was stated: python -m teacher_dump report CACHE [--teacher NAME --expect-r1 PERCENT]"
    )


def stated_before(cache: Cache, teacher: str) -> tuple[str, float] | None:
    """(split, percent) that an earlier report was compared with: what was published stays stated.

    Raises DamagedCacheError as `stored_reports` does.
    """
    report = stored_reports(cache).get(teacher, {})
    try:
        if (expected := report.get("expected")) is None:
            return None
        split, published = expected["split"], expected["published"]
        if split in cache.splits and is_of(published, float):
            return split, published
    except (AttributeError, KeyError, TypeError) as error:
        raise _unreadable(cache, f"{teacher}: {type(error).__name__}: {error}") from None
    raise _unreadable(cache, f"{teacher}: {shown(published)} of split {shown(split)}")


def stored_complaint(cache: Cache, teacher: str) -> str | None:
    """What the stored report says against training on `teacher`; None if nothing, or there is none.

    Raises DamagedCacheError as `stored_reports` does.
    """
    report = stored_reports(cache).get(teacher, {})
    try:
        return complaint(report)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(cache, f"{teacher}: {type(error).__name__}: {error}") from None


def write_report(cache: Cache, teacher: str, report: dict[str, Any]) -> Path:
    """Keep `report` in the cache, beside those of other teachers. Raises as `stored_reports` does."""
    path = cache.reports_dir / f"{REPORT}.json"
    write_file(path, canonical_json({"teachers": {**stored_reports(cache), teacher: report}}))
    return path


def lines(teacher: str, report: dict[str, Any]) -> list[str]:
    """The report for a person."""
    found = [f"teacher {teacher} on its own ({report['protocol']}):"]
    for split, told in report["splits"].items():
        if "not_computable" in told:
            found.append(f"  {split}: not computable: {told['not_computable']}")
            continue
        parts = {way: told[way] for way in told if isinstance(told[way], dict)} or {"": told}
        for way, metrics in parts.items():
            numbers = ", ".join(
                f"{name} {value:.1f}" for name, value in metrics.items() if name != "left_out"
            )
            found.append(f"  {split}{': ' + way.replace('_', ' ') if way else ''}: {numbers}")
        if told["left_out"]:
            found.append(f"  {split}: {told['left_out']} rows left out, their video did not decode")
    if not report["splits"]:
        found.append("  the dataset has no split to evaluate on")
    return found
