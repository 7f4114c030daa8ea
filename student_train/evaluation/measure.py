"""Everything that is computed from a cache and a run's students: what results.json tells of the test split.

who -> direction -> metric -> mean, std, per_seed     who: teacher, untaught, taught
the directions of recognition is one, "recognition"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from store.retrieval_metrics import DIRECTIONS, METRICS, RECOGNITION_METRICS
from student_train.checkpoint import load_parameters
from student_train.config import ARMS, TAUGHT, TEST_SPLIT, UNTAUGHT
from student_train.evaluation.frame_weights import AGREEMENT, Visibility, agreement, visibility
from student_train.evaluation.recognition import Recognition, recognise, teacher_recognition
from student_train.evaluation.request import Request
from student_train.evaluation.retrieval import (
    PLAIN,
    BankRows,
    Retrieval,
    bank_rows,
    retrieve,
    teacher_frame_weight,
    teacher_metrics,
)
from student_train.evaluation.rows import ClassRows, SplitRows, class_rows, split_rows
from student_train.experiment import Experiment
from student_train.students.base import Student
from student_train.training_rows import is_recognition

TEACHER = "teacher"
RECOGNITION = "recognition"
NO_WEIGHTS = "this student weighs no frames"
METRICS_OF = {**dict.fromkeys(DIRECTIONS, METRICS), RECOGNITION: RECOGNITION_METRICS}
HEADLINE = {**dict.fromkeys(DIRECTIONS, "SumR"), RECOGNITION: "top-1"}
Results = dict[str, Any]


def measure(experiment: Experiment, request: Request, learning_rate: float) -> Results:
    """Keys: teacher and the arms asked for, gain if there are both, frame_weights, example, test;
    `reweighted` if it is asked for; `renditions` where classes are recognised.
    """
    if experiment.recognises or is_recognition(experiment.cache):
        return measure_recognition(experiment, request, learning_rate)
    return measure_retrieval(experiment, request, learning_rate)


def measure_retrieval(experiment: Experiment, request: Request, learning_rate: float) -> Results:
    cache, teacher, asked = experiment.cache, experiment.teacher, request.evaluation
    rows = split_rows(cache, experiment.teachers, TEST_SPLIT)
    bank = bank_rows(cache, experiment.teachers, asked.query_bank_rows) if asked.query_bank else None
    of_teacher = teacher_metrics(teacher, rows, asked, bank)
    retrievals = {
        arm: [
            retrieve(trained(experiment, arm, learning_rate, seed), experiment.teachers, rows, asked, bank)
            for seed in request.seeds
        ]
        for arm in request.arms
    }
    seen = visibility(cache, teacher, rows)
    measured = {**retrieval_results(of_teacher, retrievals), **bank_results(bank)}
    weights = {TEACHER: [teacher_frame_weight(teacher, rows)]}
    weights |= {arm: [of_captions(one, rows) for one in of_seeds] for arm, of_seeds in retrievals.items()}
    known = {who: [w[seen.rows] for w in of_seeds if w is not None] for who, of_seeds in weights.items()}
    known = {who: of_seeds for who, of_seeds in known.items() if of_seeds}
    counts = {"videos": len(rows.video), "texts": len(rows.text), "texts_without_video": rows.left_out}
    return {
        **measured,
        "frame_weights": frame_weight_results(known, seen),
        "example": example(experiment, rows, seen, known),
        "test": counts,
    }


def retrieval_results(teacher: Results, retrievals: Mapping[str, Sequence[Retrieval]]) -> Results:
    """The plain tables, and under `reweighted` those of every other way of ranking."""
    ways = next(iter(retrievals.values()))[0].metrics
    tables = {}
    for way in ways:
        of_teacher = teacher[way]
        table = {TEACHER: of_teacher if "absent" in of_teacher else over_seeds([of_teacher])}
        table |= {arm: over_seeds([one.metrics[way] for one in found]) for arm, found in retrievals.items()}
        tables[way] = {**table, **gain(table)}
    plain = tables.pop(PLAIN)
    return {**plain, "reweighted": tables} if tables else plain


def bank_results(bank: BankRows | None) -> Results:
    return {} if bank is None else {"query_bank": {"videos": len(bank.video), "texts": len(bank.text)}}


def measure_recognition(experiment: Experiment, request: Request, learning_rate: float) -> Results:
    rows: ClassRows = class_rows(experiment.cache, experiment.teachers, TEST_SPLIT)
    teacher = teacher_recognition(experiment.teacher, rows)
    table: Results = {TEACHER: over_classes([teacher]) if isinstance(teacher, Recognition) else teacher}
    renditions = {TEACHER: teacher.renditions} if isinstance(teacher, Recognition) else {}
    for arm in request.arms:
        found = [
            recognise(trained(experiment, arm, learning_rate, seed), experiment.teachers, rows)
            for seed in request.seeds
        ]
        table[arm] = over_classes(found)
        renditions[arm] = found[0].renditions
    counts = {"videos": len(rows.video), "classes": rows.text.shape[1], "videos_that_failed": rows.left_out}
    absent = {"absent": "not asked of a dataset of classes"}
    return {
        **table,
        **gain(table),
        "frame_weights": absent,
        "example": absent,
        "test": counts,
        "renditions": renditions,
    }


def trained(experiment: Experiment, arm: str, learning_rate: float, seed: int) -> Student:
    """A student of the run, with the parameters that its training kept."""
    student = experiment.student(arm)
    student.load_state_dict(load_parameters(experiment.run.training(arm, learning_rate, seed)))
    return student


def spread(per_seed: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (0 for a single value) and the values themselves."""
    values = [float(value) for value in per_seed]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": deviation, "per_seed": values}


def over_seeds(of_seeds: Sequence[Mapping[str, Mapping[str, float]]]) -> Results:
    """direction -> metric -> mean, std, per_seed."""
    return {
        direction: {metric: spread([found[direction][metric] for found in of_seeds]) for metric in METRICS}
        for direction in DIRECTIONS
    }


def over_classes(of_seeds: Sequence[Recognition]) -> Results:
    metrics = {metric: spread([one.metrics[metric] for one in of_seeds]) for metric in RECOGNITION_METRICS}
    return {RECOGNITION: metrics}


def gain(table: Mapping[str, Any]) -> Results:
    """{"gain": taught less untaught, paired by seed, in the headline metric by direction}; {} of one arm."""
    if not set(ARMS) <= table.keys():
        return {}
    gains = {}
    for direction, metrics in table[TAUGHT].items():
        metric = HEADLINE[direction]
        taught, untaught = metrics[metric]["per_seed"], table[UNTAUGHT][direction][metric]["per_seed"]
        gains[direction] = {metric: spread([a - b for a, b in zip(taught, untaught, strict=True)])}
    return {"gain": gains}


def of_captions(retrieval: Retrieval, rows: SplitRows) -> np.ndarray | None:
    """The frame weights [T, M] of every caption's own video."""
    return None if retrieval.frame_weight is None else retrieval.frame_weight[rows.text_video]


def frame_weight_results(known: Mapping[str, list[np.ndarray]], seen: Visibility) -> dict[str, Any]:
    """How closely frame weights follow the visible frames: who -> measure -> mean, std, per_seed."""
    if not known.keys() & set(ARMS):
        return {"absent": NO_WEIGHTS}
    if not len(seen.rows):
        return {"absent": "no test video has a known moment with frames inside and outside of it"}
    results: dict[str, Any] = {"captions": len(seen.rows)}
    for who, of_seeds in {"uniform": [seen.uniform], **known}.items():
        found = [agreement(weight, seen) for weight in of_seeds]
        results[who] = {name: spread([values[name] for values in found]) for name in AGREEMENT}
    return results


def example(
    experiment: Experiment, rows: SplitRows, seen: Visibility, known: Mapping[str, list[np.ndarray]]
) -> dict[str, Any]:
    """Weights of one test caption, of the first seed: the one of median share on visible frames.

    The share is that of the last arm, so that the example is neither the best nor the worst of it.
    """
    if not known.keys() & set(ARMS):
        return {"absent": NO_WEIGHTS}
    if not len(seen.rows):
        return {"absent": "no test caption to show"}
    cache, first = experiment.cache, {who: of_seeds[0] for who, of_seeds in known.items()}
    share = (list(first.values())[-1] * seen.visible).sum(1)
    chosen = int(np.argsort(share, kind="stable")[len(share) // 2])
    text = int(rows.text[seen.rows[chosen]])
    video = int(cache.text_video[text])
    valid = seen.valid[chosen]
    return {
        "video": cache.video_ids[video],
        "text": cache.texts[text],
        "frame_time_s": experiment.teacher.frame_time_s[video, 0][valid].tolist(),
        "frame_visible": seen.visible[chosen][valid].tolist(),
        "frame_weight": {who: weight[chosen][valid].tolist() for who, weight in first.items()},
    }
