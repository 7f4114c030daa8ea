"""results.json for people: the table that is printed and written as results.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from store.retrieval_metrics import DIRECTIONS, METRICS, TEXT_TO_VIDEO
from student_train.config import ARMS, TAUGHT, UNTAUGHT

WHO = ("teacher", *ARMS)
LABELS = {"text_to_video": "text to video", "video_to_text": "video to text"}
MEASURES = {"mass": "weight on them", "hit@1": "top frame is one", "auc": "AUC"}


def markdown(results: Mapping[str, Any]) -> str:
    """The tables and lines of a run, in Markdown that also reads well in a terminal."""
    parts = [title(results), retrieval_table(results), *notes(results), frame_weight_table(results)]
    parts.append(size_line("Seconds", results["seconds"], ".1f"))
    parts.append(size_line("Bytes in the cache", results["bytes"], ",d"))
    return "\n\n".join(part for part in parts if part) + "\n"


def title(results: Mapping[str, Any]) -> str:
    cache, test, seeds = results["cache"], results["test"], results["seeds"]
    left_out = test["texts_without_video"]
    lost = f", {left_out} captions left out whose video did not decode" if left_out else ""
    student = f"{results['student']} (recipe {results['recipe']})"
    head = f"# {student} on {cache['dataset']}, taught by {cache['teacher']}"
    return (
        f"{head}\n\n"
        f"Test split: {test['videos']} videos, {test['texts']} captions{lost}. "
        f"Students: mean ± standard deviation over seeds {', '.join(map(str, seeds))}."
    )


def retrieval_table(results: Mapping[str, Any]) -> str:
    rows = [["", "", *METRICS]]
    for direction in DIRECTIONS:
        for who in WHO:
            found = results.get(who, {"absent": ""})
            if "absent" not in found:
                cells = [with_spread(found[direction][metric]) for metric in METRICS]
                rows.append([LABELS[direction], who, *cells])
    return table(rows)


def with_spread(found: Mapping[str, Any], digits: int = 1) -> str:
    """ "mean ± std", the mean alone for a single value."""
    mean = f"{found['mean']:.{digits}f}"
    return mean if len(found["per_seed"]) == 1 else f"{mean} ± {found['std']:.{digits}f}"


def notes(results: Mapping[str, Any]) -> list[str]:
    """Lines about the teacher if it is absent, the gain of teaching, and the learning rate."""
    lines = []
    if "absent" in results["teacher"]:
        lines.append(f"No row for the teacher: {results['teacher']['absent']}.")
    if "gain" in results:
        lines.append("\n".join(gain_line(results, direction) for direction in DIRECTIONS))
    lines.append(learning_rate_line(results))
    return lines


def gain_line(results: Mapping[str, Any], direction: str) -> str:
    found = results["gain"][direction]["SumR"]
    each = ", ".join(f"{value:+.1f}" for value in found["per_seed"])
    teacher = results["teacher"]
    closed = ""
    if "absent" not in teacher:
        gap = teacher[direction]["SumR"]["mean"] - results[UNTAUGHT][direction]["SumR"]["mean"]
        closed = f", {100 * found['mean'] / gap:.0f}% of the gap to the teacher" if gap > 0 else ""
    spread = f" ± {found['std']:.1f}" if len(found["per_seed"]) > 1 else ""
    gained = f"{found['mean']:+.1f}{spread} SumR (by seed {each})"
    return f"- Gain of teaching, {LABELS[direction]}: {gained}{closed}."


def learning_rate_line(results: Mapping[str, Any]) -> str:
    rate, tried, arm = (
        results["learning_rate"],
        results["learning_rates_tried"],
        results["learning_rate_chosen_for"],
    )
    if not tried:
        return f"Learning rate {rate:g}, last epoch: there is no val split to choose on."
    scores = ", ".join(f"{float(name):g}: {with_spread(found)}" for name, found in tried.items())
    chosen = f"chosen on val for the {arm} student, used for all" if arm else "the only one given"
    return (
        f"Learning rate {rate:g}, {chosen} (val SumR {scores}); "
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


def sum_recall(results: Mapping[str, Any], who: str) -> dict[str, Any] | None:
    """SumR, text to video, of teacher or arm; None if it is not there."""
    found = results.get(who, {"absent": ""})
    return None if "absent" in found else found[TEXT_TO_VIDEO]["SumR"]
