"""python -m teacher_dump fit TEACHER: fine-tune a teacher on a dataset; `dump` reads what it writes."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from store.cli import HelpFormatter, add_debug, at_least_one, from_zero
from store.errors import InputError
from store.inputs.datasets import load_dataset, prepare_dataset
from store.lookup import load_plugin, plugin_names
from teacher_dump import courses

if TYPE_CHECKING:
    from store.inputs.samples import Samples
    from teacher_dump.fitting.course import FitRequest
    from teacher_dump.fitting.settings import FitSettings

VAL = "val"
CHANGEABLE = (
    ("epochs", at_least_one, "passes over the pairs"),
    ("batch-size", at_least_one, "pairs of a step"),
    ("learning-rate", float, "of new modules"),
    ("pretrained-learning-rate", float, "of what is pre-trained; 0 locks the image tower"),
    ("weight-decay", float, "of matrices"),
    ("warmup", float, "share of the steps, or from 1 on steps"),
    ("frames", at_least_one, "of a video"),
    ("words", at_least_one, "token ids of a text"),
    ("seed", from_zero, "of what is drawn"),
    ("threads", at_least_one, "of torch; they change the last bits"),
)
OPTIONS = (
    ("image-size", at_least_one, "albef: pixels of a frame's side"),
    ("queue", at_least_one, "albef: embeddings remembered"),
    ("momentum", float, "albef: share of the slow copies that a step keeps"),
    ("alpha", float, "albef: weight of what the slow copies believe"),
    ("rerank", at_least_one, "albef: candidates that validation matches"),
    ("context", at_least_one, "classes: learned vectors before the name"),
    ("architecture", str, "classes: a name of open_clip"),
    ("pretrained", str, "classes: a tag of open_clip, a file, or random"),
)


def add_command(commands: Any) -> None:
    """`commands`: the sub-parsers of python -m teacher_dump."""
    names = plugin_names(courses)
    parser: argparse.ArgumentParser = commands.add_parser(
        "fit", help="fine-tune a teacher on a dataset", formatter_class=HelpFormatter
    )
    parser.set_defaults(execute=execute)
    parser.add_argument("teacher", nargs="?", default="demo", help=f"{', '.join(names)}")
    parser.add_argument("--dataset", help="as for dump; a teacher of the demo renders its own clips")
    parser.add_argument("--data", type=Path, help="its folder or file (default: data/<dataset>)")
    parser.add_argument("--allow-missing", action="store_true", help="take the rows that are there")
    parser.add_argument("--checkpoint", type=Path, help="the weights to start from")
    parser.add_argument("--vocabulary", type=Path, help="albef: vocab.txt (default: beside the checkpoint)")
    parser.add_argument(
        "--out", type=Path, help="where the weights go (default: weights/<teacher>.safetensors)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument("--train-split", default="train")
    parser.add_argument(
        "--val-split", help="by its R@1 the best epoch is kept (default: val, if there is one)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")
    for name, kind, what in (*CHANGEABLE, *OPTIONS):
        parser.add_argument(f"--{name}", type=kind, help=f"{what} (default: the recipe's)")
    parser.add_argument("--decoders", type=at_least_one, default=2, help="processes that decode videos")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds for decoding one video")
    parser.add_argument("--memory-limit-mb", type=at_least_one, default=2048, help="for decoding one video")
    parser.add_argument("--keep-mb", type=from_zero, default=512, help="decoded frames that stay in memory")
    parser.add_argument(
        "--val-videos", type=at_least_one, default=1000, help="at most as many to validate on"
    )
    add_debug(parser)


def execute(arguments: argparse.Namespace) -> int:
    course_of = load_plugin(courses, "course of fitting", arguments.teacher)
    out = arguments.out or getattr(course_of, "OUT", Path("weights") / f"{arguments.teacher}.safetensors")
    if out.exists() and not arguments.overwrite:
        raise InputError(f"{out} is there; name another file by --out, or pass --overwrite")
    options = options_of(course_of, arguments)
    samples = dataset_of(course_of, arguments)

    from teacher_dump.fitting.loop import fit

    request = request_of(arguments, samples, course_of.DEFAULTS, options)
    course = course_of.course(request)
    identity = {
        "teacher": arguments.teacher,
        "dataset": samples.name,
        "rows_sha256": samples.rows_digest(),
        "splits": [request.train_split, request.val_split],
        **getattr(course_of, "TOLD", {}),
    }
    try:
        told = fit(course, request.settings, out, identity)
        for video, reason in course.failures().items():
            print(f"left out, {video}: {reason}")
    finally:
        course.close()
    best = told["best_epoch"]
    print(f"{out}: epoch {best} of {len(told['epochs'])}, {told['epochs'][best - 1]}")
    return 0


def dataset_of(course_of: ModuleType, arguments: argparse.Namespace) -> Samples:
    """The rows that were named; without a name, the clips that the course brings itself."""
    own = getattr(course_of, "DATASET", None)
    if arguments.dataset is None and own is None:
        raise InputError(f"fit {arguments.teacher} wants --dataset NAME --data DIR: python -m store dataset")
    if arguments.dataset is None:
        data = arguments.data or course_of.DATA
        course_of.prepare(data)
        return load_dataset(str(own), data)
    data = arguments.data or Path("data") / arguments.dataset
    prepare_dataset(arguments.dataset, data)
    return load_dataset(arguments.dataset, data, arguments.allow_missing)


def chosen_val_split(samples: Samples, named: str | None) -> str:
    """`named`, or the usual one, which need not be there; raises InputError where `named` is not."""
    if named is not None and named not in samples.splits:
        raise InputError(
            f"dataset {samples.name!r} has no split {named!r} to validate on, it has "
            f"{', '.join(sorted(samples.splits))}; name one of them by --val-split"
        )
    return named or VAL


def options_of(course_of: ModuleType, arguments: argparse.Namespace) -> dict[str, Any]:
    """The course's own options that were given; raises InputError for one that it has no use for."""
    taken = getattr(course_of, "OPTIONS", ())
    fixed = [name for name in ("frames", "words") if getattr(course_of.DEFAULTS, name) is None]
    known = [name.replace("-", "_") for name, _, _ in OPTIONS]
    given = {name: value for name in known if (value := getattr(arguments, name)) is not None}
    for name in (*given, *fixed, "vocabulary"):
        if name not in taken and getattr(arguments, name) is not None:
            raise InputError(
                f"fit {arguments.teacher} has no use for --{name.replace('_', '-')}; leave it out"
            )
    return given


def request_of(
    arguments: argparse.Namespace, samples: Samples, defaults: FitSettings, options: dict[str, Any]
) -> FitRequest:
    """The recipe with what the command line changes of it."""
    from teacher_dump.fitting.course import Decoding, FitRequest

    known = {field.name for field in fields(defaults)}
    said = {name.replace("-", "_"): getattr(arguments, name.replace("-", "_")) for name, _, _ in CHANGEABLE}
    changes = {name: value for name, value in said.items() if value is not None and name in known}
    return FitRequest(
        samples,
        replace(defaults, **changes),
        Decoding(
            arguments.decoders,
            arguments.time_limit,
            arguments.memory_limit_mb,
            arguments.keep_mb,
            arguments.val_videos,
        ),
        arguments.checkpoint,
        arguments.vocabulary,
        arguments.device,
        arguments.train_split,
        chosen_val_split(samples, arguments.val_split),
        options,
    )
