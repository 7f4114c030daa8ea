"""Timing that compares: every case once a round, in a new order each round, so that noise hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timings:
    """Seconds of every case, a number a round."""

    seconds: Mapping[str, tuple[float, ...]]

    def median(self, case: str) -> float:
        return statistics.median(self.seconds[case])

    def speed(self, case: str, reference: str) -> float:
        """How many times as fast as `reference` the case is: the median of the rounds' own ratios."""
        pairs = zip(self.seconds[reference], self.seconds[case], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)


def interleaved(
    cases: Mapping[str, Callable[[int], object]],
    rounds: int,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> Timings:
    """Time every case once in each of `rounds` rounds, after one more that does not count.

    A case is called with the round's number. before: what is done, untimed, ahead of each run of a case.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = np.random.default_rng(0)
    for number in range(1 + rounds):
        for name in order.permutation(list(cases)).tolist():
            if before and name in before:
                before[name]()
            started = time.perf_counter()
            cases[name](number)
            seconds[name].append(time.perf_counter() - started)
    return Timings({name: tuple(taken[1:]) for name, taken in seconds.items()})
