"""What a run's students retrieve on the test split, as results.json holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from store.errors import DamagedCacheError
from store.reader import Cache
from store.retrieval_metrics import DIRECTIONS, METRICS
from student_train.checkpoint import load_parameters, load_story
from student_train.config import ARMS, TAUGHT, TEST_SPLIT, UNTAUGHT
from student_train.evaluate import (
    Retrieval,
    SplitRows,
    metrics_of,
    retrieve,
    split_rows,
    teacher_frame_weight,
    teacher_metrics,
)
from student_train.experiment import Experiment, Selection
from student_train.frame_weights import AGREEMENT, Visibility, agreement, visibility
from student_train.run_folder import RunFolder

TEACHER = "teacher"


@dataclass(frozen=True)
class Request:
    """What was asked of a run: arms in the order of ARMS, seeds, and learning rates to choose from."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "arms": list(self.arms),
            "seeds": list(self.seeds),
            "learning_rates": list(self.learning_rates),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Request:
        return cls(*(tuple(fields[name]) for name in ("arms", "seeds", "learning_rates")))


def is_current(run: RunFolder, request: Request) -> bool:
    """Whether results.json answers `request` and the students that it tells of are still there."""
    if not run.has_results():
        return False
    results = run.results()
    rate = results["learning_rate"]
    folders = [run.training(arm, rate, seed) for arm in request.arms for seed in request.seeds]
    return results["request"] == request.to_dict() and all(map(load_story, folders))


def spread(per_seed: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (0 for a single value) and the values themselves."""
    values = [float(value) for value in per_seed]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": deviation, "per_seed": values}


def measure(experiment: Experiment, request: Request, learning_rate: float) -> dict[str, Any]:
    """Everything that is computed from cache and students: retrieval, frame weights, an example.

    Keys: teacher and the arms asked for, gain if there are both, frame_weights, example, test.
    """
    cache, teacher = experiment.cache, experiment.teacher
    rows = split_rows(cache, teacher, TEST_SPLIT)
    seen = visibility(cache, teacher, rows)
    found = teacher_metrics(teacher, rows)
    measured: dict[str, Any] = {TEACHER: found if "absent" in found else over_seeds([found])}
    weights = {TEACHER: [teacher_frame_weight(teacher, rows)]}
    for arm in request.arms:
        retrievals = []
        for seed in request.seeds:
            student = experiment.student()
            student.load_state_dict(load_parameters(experiment.run.training(arm, learning_rate, seed)))
            retrievals.append(retrieve(student, teacher, rows))
        measured[arm] = over_seeds([metrics_of(retrieval, rows) for retrieval in retrievals])
        weights[arm] = [of_captions(retrieval, rows) for retrieval in retrievals]
    if set(ARMS) <= set(request.arms):
        measured["gain"] = gain(measured)
    known = {who: [w[seen.rows] for w in of_seeds if w is not None] for who, of_seeds in weights.items()}
    known = {who: of_seeds for who, of_seeds in known.items() if of_seeds}
    measured["frame_weights"] = frame_weight_results(known, seen)
    measured["example"] = example(experiment, rows, seen, known)
    counts = {"videos": len(rows.video), "texts": len(rows.text), "texts_without_video": rows.left_out}
    return {**measured, "test": counts}


def of_captions(retrieval: Retrieval, rows: SplitRows) -> np.ndarray | None:
    """The frame weights [T, M] of every caption's own video."""
    return None if retrieval.frame_weight is None else retrieval.frame_weight[rows.text_video]


def over_seeds(of_seeds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, Any]]:
    """direction -> metric -> mean, std, per_seed."""
    return {
        direction: {metric: spread([found[direction][metric] for found in of_seeds]) for metric in METRICS}
        for direction in DIRECTIONS
    }


def gain(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Taught less untaught SumR by direction, paired by seed."""
    gains = {}
    for direction in DIRECTIONS:
        taught, untaught = (measured[arm][direction]["SumR"]["per_seed"] for arm in (TAUGHT, UNTAUGHT))
        gains[direction] = {"SumR": spread([a - b for a, b in zip(taught, untaught, strict=True)])}
    return gains


def frame_weight_results(known: Mapping[str, list[np.ndarray]], seen: Visibility) -> dict[str, Any]:
    """How closely frame weights follow the visible frames: who -> measure -> mean, std, per_seed."""
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
    if not len(seen.rows) or not known:
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


def assemble(
    experiment: Experiment, request: Request, selection: Selection, measured: dict[str, Any], measure_s: float
) -> dict[str, Any]:
    """results.json: `measured`, and how it came about."""
    choice, cache, rate = experiment.choice, experiment.cache, selection.learning_rate
    return {
        **measured,
        "seeds": list(request.seeds),
        "learning_rate": rate,
        "learning_rate_chosen_for": selection.chosen_for,
        "learning_rates_tried": {repr(rate): spread(scores) for rate, scores in selection.tried.items()},
        "seconds": seconds(experiment, request, selection, measure_s),
        "bytes": dict(experiment.teacher.bytes_by_signal),
        "cache": {"digest": cache.digest, "dataset": cache.dataset["name"], "teacher": choice.teacher},
        "kept_epoch": choice.recipe.keep,
        "student": choice.student,
        "recipe": choice.recipe_name,
        "trainings": {
            arm: [load_story(experiment.run.training(arm, rate, seed)) for seed in request.seeds]
            for arm in request.arms
        },
        "request": request.to_dict(),
    }


def seconds(
    experiment: Experiment, request: Request, selection: Selection, measure_s: float
) -> dict[str, float]:
    """Seconds by phase, in order: those of the dump, if it reported them, and those of this run."""
    phases = dump_seconds(experiment.cache, experiment.choice.teacher)
    for arm in request.arms:
        rates = request.learning_rates if arm == selection.chosen_for else (selection.learning_rate,)
        folders = [experiment.run.training(arm, rate, seed) for rate in rates for seed in request.seeds]
        phases[f"train {arm}"] = sum(story["seconds"] for story in map(load_story, folders) if story)
    return {**phases, "evaluate": measure_s}


def dump_seconds(cache: Cache, teacher: str) -> dict[str, float]:
    """Seconds by phase of a teacher's dump, {} if it left no report. Raises DamagedCacheError."""
    file = cache.reports_dir / "dump.json"
    if not file.is_file():
        return {}
    try:
        phases = json.loads(file.read_bytes())["teachers"].get(teacher, {"seconds": {}})["seconds"]
        return {str(phase): float(value) for phase, value in phases.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DamagedCacheError(f"{file} holds no seconds by phase; remove it, it is only a report") from None
