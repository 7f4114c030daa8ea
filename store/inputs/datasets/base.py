"""The contract of a dataset: a module of this folder, whose name is the dataset's, with these two.

    NEEDS: str                       one line: what DATA has to be, for the error when it is not
    load(data: Path) -> Samples      every row of it, in an order that depends on the files alone

and, for a dataset that makes its own files, `prepare(data: Path) -> dict[str, float]`: seconds by phase.

`load` raises MissingFileError with one line that says what to place where, and InputError with file and line
for what it can't use. It reads annotations and looks for video files; it never opens one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from store.errors import MissingFileError
from store.inputs.samples import Samples

SHOWN = 3


class Dataset(Protocol):
    """What a dataset module offers."""

    NEEDS: str

    def load(self, data: Path) -> Samples: ...


def refuse_missing_videos(where: str, missing: Sequence[object], count: int) -> None:
    """Raise MissingFileError that tells how many of `count` video files are missing, and the first few."""
    if missing:
        raise MissingFileError(
            f"{where}: {len(missing)} of {count} video files are missing, first: {first_few(missing)}"
        )


def first_few(names: Iterable[object]) -> str:
    """The first three of `names` for an error message, with dots where there are more."""
    named = [str(name) for name in names]
    return ", ".join(named[:SHOWN]) + (", ..." if len(named) > SHOWN else "")
