"""python -m tests.golden DIR: run every golden case of a folder; exit status 1 if one fails."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from tests.golden.run import FAILED, PASSED, SKIPPED, run_folder


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("give one folder of golden cases: python -m tests.golden DIR", file=sys.stderr)
        return 2
    counts: Counter[str] = Counter()
    for verdict in run_folder(Path(arguments[0])):
        counts[verdict.result] += 1
        print(f"{verdict.result:8} {verdict.name}: {verdict.told}", flush=True)
    print(f"{counts[PASSED]} passed, {counts[FAILED]} failed, {counts[SKIPPED]} skipped")
    return 1 if counts[FAILED] or not sum(counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
