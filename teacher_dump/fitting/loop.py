"""The loop that fits: epochs, validation after each, the best kept, resumable between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from store.errors import NonFiniteError
from teacher_dump.fitting.bert_adam import BertAdam
from teacher_dump.fitting.course import Course, Place
from teacher_dump.fitting.progress import Progress
from teacher_dump.fitting.settings import ADAMW, BERT_ADAM, FitSettings
from teacher_dump.weights_file import FITTED_BY

LOSS = "loss"


def tell(line: str) -> None:
    """Print at once: an epoch may take hours."""
    print(line, flush=True)


def fit(
    course: Course,
    settings: FitSettings,
    out: Path,
    identity: Mapping[str, Any],
    report: Callable[[str], None] = tell,
) -> dict[str, Any]:
    """Train `course`, write the weights of its best epoch to `out`, and return what the file tells.

    identity: what a resume must share besides settings. An interrupted fit goes on after its last whole
    epoch and ends as an uninterrupted one. Raises NonFiniteError at a loss that is no number: the resume file
    holds the epoch before.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    told = {
        "settings": settings.to_dict(),
        "course": course.described(),
        "started_from": dict(course.started_from),
        **course.told(),
        **identity,
    }
    progress = Progress(out, told, settings.keep)
    optimiser = optimiser_of(course, settings)
    progress.resume(course, optimiser)
    began = time.monotonic()
    for epoch in range(len(progress.history), settings.epochs):
        loss = train_epoch(course, settings, optimiser, epoch)
        metrics = course.validate()
        progress.take({LOSS: round(loss, 6), **metrics}, course.weights())
        progress.save(course, optimiser)
        shown = (
            ", ".join(f"{name} {value:.1f}" for name, value in metrics.items()) or "nothing to validate on"
        )
        report(f"epoch {epoch + 1} of {settings.epochs}: loss {loss:.3f}, {shown}")
    result = {
        **told,
        "epochs": progress.history,
        "best_epoch": progress.best_epoch + 1,
        "failures": len(course.failures()),
        "seconds": round(time.monotonic() - began, 1),
        "device": next(course.model.parameters()).device.type,
        "made_with": FITTED_BY,
    }
    progress.finish(result)
    return result


def train_epoch(course: Course, settings: FitSettings, optimiser: torch.optim.Optimizer, epoch: int) -> float:
    """One epoch; its mean loss."""
    per_epoch = course.steps_per_epoch
    base = [group["base_lr"] for group in optimiser.param_groups]
    total = 0.0
    course.model.train()
    with tqdm(
        course.batches(epoch), total=per_epoch, desc=f"fit {epoch + 1}", unit="step", disable=None
    ) as bar:
        for number, batch in enumerate(bar):
            step = epoch * per_epoch + number
            rate = settings.rate(step, settings.epochs * per_epoch, per_epoch)
            for group, lr in zip(optimiser.param_groups, base, strict=True):
                group["lr"] = lr * rate
            loss = course.loss(batch, Place(step, per_epoch))
            if not torch.isfinite(loss):
                raise NonFiniteError(
                    f"the loss is {loss.item()} in step {number + 1} of epoch {epoch + 1}; give a smaller "
                    "--learning-rate, or look at the videos of that batch"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if settings.clip_norm:
                torch.nn.utils.clip_grad_norm_(course.model.parameters(), settings.clip_norm)
            optimiser.step()
            course.after_step()
            total += loss.item()
            bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)
    return total / per_epoch


def optimiser_of(course: Course, settings: FitSettings) -> torch.optim.Optimizer:
    """The optimiser that the settings name, over the course's groups; each knows its own "base_lr"."""
    groups = [{**group, "base_lr": group["lr"]} for group in course.groups() if group["params"]]
    if settings.optimiser == BERT_ADAM:
        return BertAdam(groups, lr=settings.learning_rate, betas=settings.betas)
    if settings.optimiser == ADAMW:
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.betas[0])
