"""results.json for people: the table that is printed and written as results.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from store.retrieval_metrics import TEXT_TO_VIDEO
from student_train.config import ARMS, KEEP_BEST_ON_TEST, TAUGHT, UNTAUGHT

WHO = ("teacher", *ARMS)
LABELS = {"text_to_video": "text to video", "video_to_text": "video to text", "recognition": "recognition"}
MEASURES = {"mass": "weight on them", "hit@1": "top frame is one", "auc": "AUC"}


def markdown(results: Mapping[str, Any]) -> str:
    """The tables and lines of a run, in Markdown that also reads well in a terminal."""
    parts = [title(results), peak_line(results), metrics_table(results), *notes(results)]
    for way, tables in results.get("reweighted", {}).items():
        parts += [reweighted_line(way, results), metrics_table(tables, mark=way.replace("_", " "))]
        parts += [absence(tables), gain_lines(tables)]
    parts.append(frame_weight_table(results))
    parts.append(size_line("Seconds", results["seconds"], ".1f"))
    parts.append(size_line("Bytes in the cache", results["bytes"], ",d"))
    return "\n\n".join(part for part in parts if part) + "\n"


def title(results: Mapping[str, Any]) -> str:
    cache, seeds = results["cache"], [str(seed) for seed in results["seeds"]]
    student = f"{results['student']} (recipe {results['recipe']})"
    roles = "".join(f", {name} as {role}" for role, name in cache.get("roles", {}).items())
    head = f"# {student} on {cache['dataset']}, taught by {cache['teacher']}{roles}"
    over = (
        f"seed {seeds[0]}" if len(seeds) == 1 else f"mean ± standard deviation over seeds {', '.join(seeds)}"
    )
    return f"{head}\n\n{test_line(results)} Students: {over}."


def test_line(results: Mapping[str, Any]) -> str:
    test = results["test"]
    if "classes" in test:
        lost = (
            f", {test['videos_that_failed']} left out that did not decode"
            if test["videos_that_failed"]
            else ""
        )
        views = ", ".join(f"{who} {count}" for who, count in results["renditions"].items())
        return (
            f"Test split: {test['videos']} videos, {test['classes']} classes{lost}. Accuracy in percent; "
            f"renditions that are averaged: {views}."
        )
    left_out = test["texts_without_video"]
    lost = f", {left_out} captions left out whose video did not decode" if left_out else ""
    return f"Test split: {test['videos']} videos, {test['texts']} captions{lost}."


def peak_line(results: Mapping[str, Any]) -> str:
    """Says so where epochs were chosen by their score on the test split."""
    if results["kept_epoch"] != KEEP_BEST_ON_TEST:
        return ""
    return (
        "Peak on test, as the paper: every training keeps the epoch that scores best on the test split "
        "itself, so these numbers flatter the students."
    )


def reweighted_line(way: str, results: Mapping[str, Any]) -> str:
    """What was done to the scores of the table that follows."""
    asked = results["request"]["evaluation"]
    if way == "dual_softmax":
        what = "**With dual softmax** (DSL): scores times their softmax over all queries of the test split"
        return f"{what}, at temperature {asked['dual_softmax_temperature']:g}. No query is ranked by itself."
    bank = results["query_bank"]
    return (
        f"**With query-bank normalisation** (QBNorm): bank of {bank['texts']} captions and {bank['videos']} "
        f"videos of the train split, beta {asked['query_bank_beta']:g} on the logits."
    )


def metrics_table(tables: Mapping[str, Any], mark: str = "") -> str:
    """Teacher, untaught and taught by direction; mark: beside every direction, how it was ranked."""
    whos = [who for who in WHO if "absent" not in tables.get(who, {"absent": ""})]
    rows: list[list[str]] = []
    for direction in dict.fromkeys(direction for who in whos for direction in tables[who]):
        for who in whos:
            found = tables[who][direction]
            label = f"{LABELS[direction]}, {mark}" if mark else LABELS[direction]
            rows = rows or [["", "", *found]]
            rows.append([label, who, *(with_spread(value) for value in found.values())])
    return table(rows)


def with_spread(found: Mapping[str, Any], digits: int = 1) -> str:
    """ "mean ± std", the mean alone for a single value."""
    mean = f"{found['mean']:.{digits}f}"
    return mean if len(found["per_seed"]) == 1 else f"{mean} ± {found['std']:.{digits}f}"


def notes(results: Mapping[str, Any]) -> list[str]:
    """Lines about the teacher if it is absent, the gain of teaching, and the learning rate."""
    return [absence(results), gain_lines(results), learning_rate_line(results)]


def absence(tables: Mapping[str, Any]) -> str:
    """Why a table has no row for the teacher; "" if it has one."""
    teacher = tables["teacher"]
    return f"No row for the teacher: {teacher['absent']}." if "absent" in teacher else ""


def gain_lines(tables: Mapping[str, Any]) -> str:
    return "\n".join(gain_line(tables, direction) for direction in tables.get("gain", {}))


def gain_line(tables: Mapping[str, Any], direction: str) -> str:
    """Taught less untaught, seed by seed, and how much of the gap to the teacher that closes."""
    ((metric, found),) = tables["gain"][direction].items()
    each = ", ".join(f"{value:+.1f}" for value in found["per_seed"])
    spread = f" ± {found['std']:.1f}" if len(found["per_seed"]) > 1 else ""
    closed = gap_closed(tables, direction)
    share = "" if closed is None else f", {told_share(closed, ' to the teacher')}"
    gained = f"{found['mean']:+.1f}{spread} {metric} (by seed {each})"
    return f"- Gain of teaching, {LABELS[direction]}: {gained}{share}."


def gain_cell(tables: Mapping[str, Any], direction: str) -> str:
    """The gain of teaching in a table's cell; "" if one arm alone was trained."""
    if "gain" not in tables:
        return ""
    ((metric, found),) = tables["gain"][direction].items()
    spread = f" ± {found['std']:.1f}" if len(found["per_seed"]) > 1 else ""
    closed = gap_closed(tables, direction)
    share = "" if closed is None else f", {told_share(closed)}"
    return f"{found['mean']:+.1f}{spread} {metric}{share}"


def told_share(closed: float, whose: str = "") -> str:
    """No share for who passes the teacher, which may be near the untaught student, or moves away from it."""
    if closed > 100:
        return "past the teacher"
    return f"{closed:.0f}% of the gap{whose}" if closed > 0 else "away from the teacher"


def gap_closed(tables: Mapping[str, Any], direction: str) -> float | None:
    """Percent of the way from untaught to teacher; None without a teacher that is better than untaught."""
    if "absent" in tables["teacher"]:
        return None
    ((metric, found),) = tables["gain"][direction].items()
    gap = tables["teacher"][direction][metric]["mean"] - tables[UNTAUGHT][direction][metric]["mean"]
    return 100 * found["mean"] / gap if gap > 0 else None


def learning_rate_line(results: Mapping[str, Any]) -> str:
    rate, tried, arm = (
        results["learning_rate"],
        results["learning_rates_tried"],
        results["learning_rate_chosen_for"],
    )
    if not tried:
        return f"Learning rate {rate:g}, last epoch: there is no val split to choose on."
    if results["epoch_chosen_on"] == "test":
        return f"Learning rate {rate:g}, the only one given."
    metric = "top-1" if "classes" in results["test"] else "SumR"
    scores = ", ".join(f"{float(name):g}: {with_spread(found)}" for name, found in tried.items())
    chosen = f"chosen on val for the {arm} student, used for all" if arm else "the only one given"
    return (
        f"Learning rate {rate:g}, {chosen} (val {metric} {scores}); "
        f"a training keeps its {results['kept_epoch']} epoch."
    )


def frame_weight_table(results: Mapping[str, Any]) -> str:
    found = results["frame_weights"]
    if "absent" in found:
        return f"Frame weights: {found['absent']}."
    rows = [["frames that show what is described", *MEASURES.values()]]
    for who in ("uniform", UNTAUGHT, TAUGHT, "teacher"):
        if who in found:
            rows.append([who, *(with_spread(found[who][name], 3) for name in MEASURES)])
    return table(rows)


def size_line(name: str, values: Mapping[str, float], spec: str) -> str:
    each = ", ".join(f"{key} {format(value, spec)}" for key, value in values.items())
    return f"{name}: {each}; together {format(sum(values.values()), spec)}."


def table(rows: list[list[str]]) -> str:
    """A Markdown table with aligned columns; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def headline(results: Mapping[str, Any], who: str) -> dict[str, Any] | None:
    """SumR, text to video, or top-1 of a dataset of classes, of teacher or arm; None if it is not there."""
    found = results.get(who, {"absent": ""})
    if "absent" in found:
        return None
    return found[TEXT_TO_VIDEO]["SumR"] if TEXT_TO_VIDEO in found else found["recognition"]["top-1"]
