"""python -m student_train over-splits: the mean over runs on the splits of one dataset (UCF-101, HMDB-51).

Each split is a cache and a run of its own; what is averaged are the means over seeds, as papers report mean
class accuracy over three splits (Text4Vis, table A.1).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from store.cli import HelpFormatter, add_debug
from store.errors import InputError
from store.retrieval_metrics import RECOGNITION_METRICS
from student_train.config import ARMS

TEXT = "the mean over runs of recognition on the splits of a dataset"
RECOGNITION = "recognition"
TOLD = ("student", "recipe")


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
    print(markdown(comparable([RunFolder(path).results() for path in options.runs], options.runs)), end="")
    return 0


def comparable(runs: Sequence[dict[str, Any]], paths: Sequence[Path]) -> Sequence[dict[str, Any]]:
    """`runs`, if they are the same student and recipe on recognition of different datasets."""
    for path, run in zip(paths, runs, strict=True):
        if not all(RECOGNITION in run.get(arm, {RECOGNITION: ()}) for arm in ARMS):
            raise InputError(f"{path} is no run of recognition; splits are averaged of classes only")
        for name in TOLD:
            if run[name] != runs[0][name]:
                raise InputError(
                    f"{path} has {name} {run[name]!r}, {paths[0]} has {runs[0][name]!r}; average runs that "
                    "differ in their split alone"
                )
    datasets = [run["cache"]["dataset"] for run in runs]
    if len(set(datasets)) < len(datasets):
        raise InputError(f"each run is of another split; these are of {', '.join(datasets)}")
    return runs


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
