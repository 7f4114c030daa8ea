"""The bench of the store compares what it claims to: every reader gives the same rows, in every case."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.measure import Timings, interleaved
from tests.bench.peers import PEERS
from tests.bench.read_bench import from_ram, from_store
from tests.bench.store_data import FEATURES, Features


@pytest.fixture(scope="module")
def features():
    return Features.drawn(FEATURES, 9)


def test_memcpy_and_our_store_give_the_rows(features, tmp_path):
    features.write_store(tmp_path)
    rows = np.array([8, 0, 3, 3])
    resident = features.resident()
    for read in (from_ram(resident), from_store(features.open_store(tmp_path))):
        out = features.room(4)
        read(rows, out)
        assert all(np.array_equal(out[name], resident[name][rows]) for name in out)


@pytest.mark.parametrize("kind", PEERS, ids=lambda kind: kind.__name__)
def test_every_peer_that_is_installed_gives_the_rows(features, tmp_path, kind):
    try:
        peer = kind(features)
    except ImportError as error:
        pytest.skip(f"{kind.name}: {error}")
    rows = np.array([8, 0, 3, 5])
    peer.write(tmp_path) if peer.own_files else features.write_store(tmp_path)
    out = features.room(4)
    peer.open(tmp_path)(rows, out)
    resident = features.resident()
    assert all(np.array_equal(out[name], resident[name][rows]) for name in out)


def test_speed_is_the_median_of_the_rounds_own_ratios():
    timings = Timings({"a": (1.0, 10.0, 2.0), "b": (2.0, 30.0, 2.0)})
    assert timings.speed("a", "b") == 2.0
    assert timings.median("b") == 2.0


def test_every_case_runs_once_a_round_after_what_prepares_it():
    log = []
    timings = interleaved(
        {"a": lambda number: log.append(("a", number)), "b": lambda number: log.append(("b", number))},
        2,
        {"b": lambda: log.append("prepared")},
    )
    assert sorted(entry for entry in log if entry != "prepared") == [(c, n) for c in "ab" for n in range(3)]
    assert all(log[at - 1] == "prepared" for at, entry in enumerate(log) if entry[0] == "b")
    assert {name: len(taken) for name, taken in timings.seconds.items()} == {"a": 2, "b": 2}
