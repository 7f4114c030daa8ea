"""python -m student_train compare: what differs between runs, and what they reached, side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from store.cli import HelpFormatter, add_debug
from store.errors import InputError
from store.identity import NOTHING
from student_train.config import KEEP_BEST_ON_TEST, TAUGHT
from student_train.evaluation.report import LABELS, WHO, gain_cell, table, with_spread

TOLD_NOT_COMPARED = ("provenance.cache_digest",)
LONGEST = 40


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "what differs between runs, and their numbers with the spread over seeds"
    parser = commands.add_parser("compare", help=text, description=text, formatter_class=HelpFormatter)
    add_debug(parser)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print the comparison; raises MissingFileError for a folder that holds no finished run."""
    from student_train.run_folder import RunFolder

    names = [str(path) for path in options.runs]
    if len(set(names)) < len(names):
        raise InputError(f"a run is named twice: {', '.join(names)}")
    folders = {name: RunFolder(Path(name)) for name in names}
    runs = {name: (folder.config(), folder.results()) for name, folder in folders.items()}
    found = comparison(runs)
    print(json.dumps(found, indent=1, ensure_ascii=False) + "\n" if options.json else markdown(found), end="")
    return 0


def comparison(runs: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    """runs: name -> (config.json, results.json).

    differs: dotted setting -> run -> value, "nothing" where a run has no such setting. results: run -> who ->
    direction -> metric -> mean, std, per_seed; `gain`, `reweighted`, and how the epoch was kept.
    """
    settings = {name: dict(leaves(told(*documents))) for name, documents in runs.items()}
    fields = dict.fromkeys(field for of_run in settings.values() for field in of_run)
    differs = {}
    for field in fields:
        values = {name: of_run.get(field, NOTHING) for name, of_run in settings.items()}
        if len({json.dumps(value) for value in values.values()}) > 1:
            differs[field] = values
    return {
        "runs": list(runs),
        "same_test_rows": len({tested_on(*documents) for documents in runs.values()}) == 1,
        "differs": differs,
        "results": {name: numbers(results) for name, (_, results) in runs.items()},
    }


def told(config: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """What decided a run's numbers: identity, what was asked, versions, the learning rate that was chosen."""
    return {
        **config["identity"],
        "request": results["request"],
        "learning_rate": results["learning_rate"],
        "provenance": config.get("provenance", {}),
    }


def leaves(value: Any, field: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted field, plain value) of every value in nested mappings that is compared."""
    if not isinstance(value, Mapping):
        yield field, value
        return
    for name, inner in value.items():
        place = f"{field}.{name}" if field else str(name)
        if place not in TOLD_NOT_COMPARED:
            yield from leaves(inner, place)


def tested_on(config: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """The same for runs whose numbers are of the same videos and texts."""
    identity = config["identity"]
    tables = identity.get("cache", {}).get("tables", NOTHING)
    return json.dumps([identity.get("dataset"), tables, results["test"]], sort_keys=True)


def numbers(results: Mapping[str, Any]) -> dict[str, Any]:
    wanted = ("teacher", "untaught", "taught", "gain", "reweighted", "test", "kept_epoch", "seeds")
    return {name: results[name] for name in wanted if name in results}


def markdown(found: Mapping[str, Any]) -> str:
    """The comparison in Markdown that also reads well in a terminal."""
    parts = ["What differs:" if found["differs"] else "The configurations are the same."]
    if found["differs"]:
        rows = [[field, *map(short, of_run.values())] for field, of_run in found["differs"].items()]
        parts.append(table([["", *found["runs"]], *rows]))
    if not found["same_test_rows"]:
        parts.append("**The runs were tested on different rows: their numbers do not compare.**")
    ways = dict.fromkeys(way for run in found["results"].values() for way in run.get("reweighted", {}))
    for way in ("", *ways):
        parts += [table(rows) for rows in result_tables(found["results"], way)]
    return "\n\n".join(parts) + "\n"


def result_tables(results: Mapping[str, Mapping[str, Any]], way: str) -> list[list[list[str]]]:
    """One table a direction: a row for each of a run's teacher and arms; way: how scores were re-weighted."""
    tables: dict[str, list[list[str]]] = {}
    for name, run in results.items():
        of_run = run.get("reweighted", {}).get(way, {}) if way else run
        peak = ", peak on test" if run["kept_epoch"] == KEEP_BEST_ON_TEST else ""
        for who in WHO:
            found = of_run.get(who, {"absent": ""})
            for direction, metrics in found.items() if "absent" not in found else ():
                label = LABELS[direction] + (f", {way.replace('_', ' ')}" if way else "")
                rows = tables.setdefault(direction, [[label, "", *metrics, "gain of teaching"]])
                gain = gain_cell(of_run, direction) if who == TAUGHT else ""
                cells = [with_spread(value) for value in metrics.values()]
                rows.append([name + (peak if who != "teacher" else ""), who, *cells, gain])
    return list(tables.values())


def short(value: Any) -> str:
    """A value as one cell."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
