"""Who runs the tasks of a dump. Serial is the reference: another executor gives the same commits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from store.ledger import Commit
from teacher_dump.plan import ShardTask


class SerialExecutor:
    """One task after another in this process."""

    def map(self, function: Callable[[ShardTask], Commit], tasks: Iterable[ShardTask]) -> Iterator[Commit]:
        return map(function, tasks)
