"""python -m student_train over-splits: the mean over runs on the splits of one dataset (UCF-101, HMDB-51).

Each split is a cache and a run of its own; what is averaged are the means over seeds, as papers report mean
class accuracy over three splits (Text4Vis, table A.1).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.cli import HelpFormatter, add_debug
from store.errors import InputError
from store.identity import require_same
from store.retrieval_metrics import RECOGNITION_METRICS
from student_train.config import ARMS

if TYPE_CHECKING:
    from student_train.run_folder import RunFolder

TEXT = "the mean over runs of recognition on the splits of a dataset"
RECOGNITION = "recognition"
SPLIT = "-split"
OF_ROWS = ("cache", "dataset")


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("over-splits", help=TEXT, description=TEXT, formatter_class=HelpFormatter)
    add_debug(parser)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="a finished run of each split")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print the table; raises InputError for runs that do not belong together."""
    from student_train.run_folder import RunFolder

    if len({path.resolve() for path in options.runs}) < len(options.runs):
        raise InputError(f"a run is named twice: {', '.join(map(str, options.runs))}")
    print(markdown(comparable([RunFolder(path) for path in options.runs])), end="")
    return 0


def comparable(runs: Sequence[RunFolder]) -> Sequence[dict[str, Any]]:
    """The results of `runs`, if they are the same training for recognition on splits of one dataset."""
    results = [run.results() for run in runs]
    for run, told in zip(runs, results, strict=True):
        if not all(RECOGNITION in told.get(arm, {RECOGNITION: ()}) for arm in ARMS):
            raise InputError(f"{run.path} is no run of recognition; splits are averaged of classes only")
        require_same(
            asked_of(runs[0], results[0]),
            asked_of(run, told),
            f"{runs[0].path} beside {run.path}",
            "average runs that differ in their split alone",
        )
    splits = [told["cache"]["dataset"] for told in results]
    if len(set(splits)) < len(splits):
        raise InputError(f"each run is of another split; these are of {', '.join(splits)}")
    if len(datasets := sorted({split.partition(SPLIT)[0] for split in splits})) > 1:
        raise InputError(f"{' and '.join(datasets)} are two datasets; only splits of one are averaged")
    return results


def asked_of(run: RunFolder, results: Mapping[str, Any]) -> dict[str, Any]:
    """What was trained and measured, but for the rows that it was trained on."""
    identity = {key: value for key, value in run.config()["identity"].items() if key not in OF_ROWS}
    return {**identity, "request": results["request"]}


def markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """A row each split and arm, and the mean of the splits."""
    from student_train.evaluation.report import table

    rows = [["", "", *RECOGNITION_METRICS]]
    for arm in (arm for arm in ARMS if all(arm in run for run in runs)):
        means = {name: [run[arm][RECOGNITION][name]["mean"] for run in runs] for name in RECOGNITION_METRICS}
        for place, run in enumerate(runs):
            rows.append([run["cache"]["dataset"], arm, *(f"{means[name][place]:.1f}" for name in means)])
        mean = (f"{sum(values) / len(values):.1f}" for values in means.values())
        rows.append([f"mean of {len(runs)} splits", arm, *mean])
    head = f"{runs[0]['student']} (recipe {runs[0]['recipe']})"
    return f"# {head}, over splits\n\n{table(rows)}\n"
