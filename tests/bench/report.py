"""What every bench leaves behind: a table on the screen and `bench-results/<name>.json`.

{"machine": {...}, "rows": [...], "bars": [{"name", "value", "target", "unit", "holds"}]}
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path("bench-results")
LIBRARIES = ("numpy", "torch", "zarr", "av", "decord", "pillow")


@dataclass(frozen=True)
class Bar:
    """A number that a bench is held to: `value` of `unit` at least, or at most, `target`."""

    name: str
    value: float
    target: float
    unit: str
    at_least: bool = True

    @property
    def holds(self) -> bool:
        """False for a value that is no number."""
        return bool(self.value >= self.target if self.at_least else self.value <= self.target)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "target": self.target,
            "unit": self.unit,
            "holds": self.holds,
        }

    def __str__(self) -> str:
        relation = ">=" if self.at_least else "<="
        verdict = "holds" if self.holds else "MISSED"
        return f"{verdict:<6}  {self.name}: {self.value:.3g} {self.unit} (bar {relation} {self.target:g})"


def machine() -> dict[str, Any]:
    """Facts that a number depends on: processor, cores, memory, versions; nothing that names a host."""
    return {
        "processor": processor_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: library_version(name) for name in LIBRARIES},
    }


def processor_model() -> str:
    """The first model name of /proc/cpuinfo, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def library_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def write(name: str, rows: Sequence[Mapping[str, Any]], bars: Sequence[Bar]) -> Path:
    """Print rows and bars, and write them to `bench-results/<name>.json`, whose path is returned."""
    for line in table(rows):
        print(line)
    print()
    for bar in bars:
        print(bar)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "machine": machine(),
        "rows": [dict(row) for row in rows],
        "bars": [bar.to_dict() for bar in bars],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a table: a column a key, in order of appearance; numbers align right."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[shown(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(map(len, [column, *(row[at] for row in cells)])) for at, column in enumerate(columns)]
    numeric = [all(isinstance(row.get(column, 0), int | float) for row in rows) for column in columns]

    def line(words: Sequence[str]) -> str:
        return "  ".join(
            word.rjust(width) if right else word.ljust(width)
            for word, width, right in zip(words, widths, numeric, strict=True)
        ).rstrip()

    return [line(columns), "  ".join("-" * width for width in widths), *map(line, cells)]


def shown(value: object) -> str:
    """A cell of the table: numbers to four places."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
