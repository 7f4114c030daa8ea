"""How fast the store is read and written: against memcpy, and against other libraries on the same rows.

    python -m tests.bench.bench_store [--videos 1000] [--rounds 7] [--folder DIR] [--only PART ...]

Each part interleaves what it compares and gives medians over rounds. A peer's files are deleted once it was
measured, so disk and RAM hold two copies of the rows and a resident one: 12 GB for 1,000 videos.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.delivery_bench import delivery
from tests.bench.int8_bench import int8_encoded
from tests.bench.pair_bench import pair_blocks
from tests.bench.read_bench import against_peers, features_only, reading, two_processes
from tests.bench.report import Bar
from tests.bench.store_data import LAYERS, Features
from tests.bench.write_bench import writing

Result = tuple[list[dict[str, Any]], list[Bar]]


def parts(features: Features, folder: Path, rounds: int) -> dict[str, Callable[[], Result]]:
    """Everything that is measured, by name; first what forks, while there are no threads."""
    return {
        "two-processes": lambda: two_processes(features, folder, rounds),
        "read": lambda: reading(features, folder, rounds),
        "delivered": lambda: delivery(features, folder, rounds),
        "int8": lambda: int8_encoded(features, folder, rounds),
        "features": lambda: features_only(folder, features.rows * 20, rounds),
        "pairs": lambda: pair_blocks(folder, features.rows >= 1000, rounds),
        "write": lambda: writing(features, folder, rounds),
        "peers": lambda: against_peers(features, folder, rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=1000, help="rows of 3.7 MB (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="times everything is measured (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where its files go meanwhile (default: the system's)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts to run (default: all)")
    options = parser.parse_args()
    if options.videos < 64:
        parser.error("--videos starts at 64, one batch")
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-store-") as temporary:
        folder = Path(temporary)
        features = Features.drawn(LAYERS, options.videos)
        features.write_store(folder / "ours")
        known = parts(features, folder, options.rounds)
        wanted = options.only or list(known)
        if unknown := set(wanted) - set(known):
            parser.error(f"no part {sorted(unknown)[0]!r}, there are {', '.join(known)}")
        for name in (name for name in known if name in wanted):
            print(f"measuring {name} ...", flush=True)
            found, held = known[name]()
            rows += [{"part": name, **row} for row in found]
            bars += held
    report.write("store", rows, bars)


if __name__ == "__main__":
    main()
