"""results.json: what was measured, and how it came about."""

from __future__ import annotations

import json
from typing import Any

from store.errors import DamagedCacheError
from store.reader import Cache
from student_train.checkpoint import load_story
from student_train.evaluation.measure import spread
from student_train.evaluation.request import Request
from student_train.experiment import Experiment, Selection


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
        "cache": {
            "digest": cache.digest,
            "dataset": cache.dataset["name"],
            "teacher": choice.teacher,
            "roles": dict(choice.roles),
        },
        "kept_epoch": choice.recipe.keep,
        "epoch_chosen_on": experiment.scored_split,
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
