"""The command `zero-shot`; what it does is in `student_train.zero_shot`, imported when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from store.cli import HelpFormatter, add_chunk_cache, add_debug, cache_place
from student_train import video_files

TEXT = "test a run's students on classes that they were not trained on"


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("zero-shot", help=TEXT, description=TEXT, formatter_class=HelpFormatter)
    add_debug(parser)
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument(
        "--cache",
        metavar="CACHE",
        type=cache_place,
        help="of the other dataset, folder or URL (default: the run's, other classes)",
    )
    add_chunk_cache(parser)
    video_files.add_options(parser)
    parser.add_argument("--teacher", help="in that cache (default: the run's)")
    parser.add_argument(
        "--role",
        metavar="ROLE=TEACHER",
        type=role_and_teacher,
        action="append",
        default=[],
        help="a teacher of that cache in a role, e.g. classifier=classes (default: as in the run)",
    )
    parser.add_argument("--split", default="test", help="which videos (default: %(default)s)")
    parser.set_defaults(execute=run)


def role_and_teacher(text: str) -> tuple[str, str]:
    """("classifier", "classes") of "classifier=classes"."""
    role, _, teacher = text.partition("=")
    if not role or not teacher:
        raise argparse.ArgumentTypeError(f"{text!r} is not like ROLE=TEACHER")
    return role, teacher


def run(options: argparse.Namespace) -> int:
    """Run `zero-shot`: 0."""
    from student_train.zero_shot import zero_shot

    return zero_shot(options)
