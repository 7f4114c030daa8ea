"""Reading rows in random order: ours and everybody's, as a ratio to copying them from RAM."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from store.signal_rows import BatchBuffers, SignalRows
from tests.bench.measure import Timings, interleaved
from tests.bench.peers import PEERS, Peer, Read
from tests.bench.report import Bar
from tests.bench.store_data import BATCH, FEATURES, Features, copy_rows, drop_pages

BATCHES = 4
MEMCPY, OURS, LATER, FIRST = "memcpy", "our store", "our store, later epochs", "our store, first epoch"
PEER_BARS = {
    "safetensors, one file a video": 1.5,
    "h5py, read_direct_chunk": 2.0,
    "litdata": 2.0,
    "tensorstore, our Zarr": 2.0,
    "zarr-python, our Zarr": 7.0,
}
Result = tuple[list[dict[str, Any]], list[Bar]]


def batches(rows: int, round_number: int, size: int = BATCH) -> list[np.ndarray]:
    """Row numbers of BATCHES batches, in another random order each round; repeated only if too few."""
    order = np.random.default_rng(round_number).permutation(rows)
    return list(np.resize(order, (BATCHES, size)))


def from_store(store: SignalRows) -> Read:
    def read(rows: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
        buffers = BatchBuffers(len(rows), {name: {"": part} for name, part in out.items()})
        store.read(dict.fromkeys(out, rows), buffers)

    return read


def from_ram(resident: Mapping[str, np.ndarray]) -> Read:
    return lambda rows, out: copy_rows(resident, rows, out)


class Lanes:
    """1 or 2 threads that share the batches of a round; each has its own reader and its own output."""

    def __init__(self, features: Features, threads: int, size: int = BATCH) -> None:
        self.features = features
        self.threads = threads
        self._size = size
        self._pool = ThreadPoolExecutor(threads)
        self._rooms = [features.room(size) for _ in range(threads)]

    def case(self, readers: list[Read]) -> Callable[[int], None]:
        """Reads a round's batches, reader i in thread i."""

        def lane(number: int, work: list[np.ndarray]) -> None:
            for rows in work[number :: self.threads]:
                readers[number](rows, self._rooms[number])

        def run(round_number: int) -> None:
            work = batches(self.features.rows, round_number, self._size)
            for task in [self._pool.submit(lane, number, work) for number in range(self.threads)]:
                task.result()

        return run

    def shown(self, timings: Timings) -> list[dict[str, Any]]:
        samples = BATCHES * self._size
        return [
            {
                "case": name,
                "threads": self.threads,
                "samples_per_s": samples / timings.median(name),
                "GB_per_s": samples * self.features.row_bytes / timings.median(name) / 1e9,
                **({"to_memcpy": timings.speed(name, MEMCPY)} if MEMCPY in timings.seconds else {}),
            }
            for name in timings.seconds
        ]


def read_once(store: SignalRows, features: Features) -> SignalRows:
    """`store` after an epoch: every row checked."""
    for rows in np.array_split(np.arange(features.rows), -(-features.rows // BATCH)):
        store.read({spec.name: rows for spec in features.signals})
    return store


def reading(features: Features, folder: Path, rounds: int) -> Result:
    """Later and first epochs of our store against memcpy, with 1 and with 2 threads; and cold."""
    resident = features.resident()
    warm = read_once(features.open_store(folder / "ours"), features)
    fresh: dict[str, Read] = {}

    def open_anew() -> None:
        store = features.open_store(folder / "ours")
        store.open([spec.name for spec in features.signals])
        fresh[FIRST] = from_store(store)

    def first(rows: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
        fresh[FIRST](rows, out)

    rows: list[dict[str, Any]] = []
    speeds: dict[tuple[str, int], float] = {}
    for threads in (1, 2):
        lanes = Lanes(features, threads)
        cases = {
            MEMCPY: lanes.case([from_ram(resident)] * threads),
            LATER: lanes.case([from_store(warm)] * threads),
            FIRST: lanes.case([first] * threads),
        }
        timings = interleaved(cases, rounds, {FIRST: open_anew})
        rows += lanes.shown(timings)
        speeds |= {(case, threads): timings.speed(case, MEMCPY) for case in cases}
    cold = f"{OURS}, cold page cache"
    lanes = Lanes(features, 2)
    timings = interleaved(
        {cold: lanes.case([from_store(warm)] * 2)}, 2, {cold: lambda: drop_pages(folder / "ours")}
    )
    bars = [
        Bar("read, later epochs, 1 thread", speeds[LATER, 1], 0.90, "of memcpy"),
        Bar("read, first epoch with crc, 1 thread", speeds[FIRST, 1], 0.60, "of memcpy"),
        Bar("read, later epochs, 2 threads", speeds[LATER, 2], 0.85, "of 2-thread memcpy"),
    ]
    return rows + lanes.shown(timings), bars


def against_peers(features: Features, folder: Path, rounds: int) -> Result:
    """Every peer in turn, in rounds with memcpy and our store, all in 2 threads."""
    resident = features.resident()
    warm = read_once(features.open_store(folder / "ours"), features)
    lanes = Lanes(features, 2)
    cases = {MEMCPY: lanes.case([from_ram(resident)] * 2), LATER: lanes.case([from_store(warm)] * 2)}
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for kind in PEERS:
        try:
            peer = kind(features)
        except ImportError as error:
            rows.append({"case": kind.name, "threads": 2, "missing": str(error)})
            continue
        with peer_files(peer, folder) as place:
            theirs = lanes.case([peer.open(place) for _ in range(lanes.threads)])
            timings = interleaved({**cases, peer.name: theirs}, rounds)
        rows += [row for row in lanes.shown(timings) if row["case"] == peer.name]
        if peer.name in PEER_BARS:
            ratio = timings.speed(LATER, peer.name)
            bars.append(Bar(f"read, 2 threads, against {peer.name}", ratio, PEER_BARS[peer.name], "x"))
    return rows, bars


@contextmanager
def peer_files(peer: Peer, folder: Path) -> Iterator[Path]:
    """Where the peer finds the rows; what it wrote itself is deleted after."""
    if not peer.own_files:
        yield folder / "ours"
        return
    place = folder / "peer"
    place.mkdir()
    try:
        peer.write(place)
        yield place
    finally:
        shutil.rmtree(place)


def two_processes(features: Features, folder: Path, rounds: int) -> Result:
    """Two processes at once, one thread each: both read our store, then both copy from shared RAM."""
    resident = features.resident()
    warm = read_once(features.open_store(folder / "ours"), features)
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(2), context.SimpleQueue()

    def child() -> None:
        lanes = Lanes(features, 1)
        cases = {MEMCPY: lanes.case([from_ram(resident)]), LATER: lanes.case([from_store(warm)])}
        # One order for both: a case is measured while the other process runs the same one.
        timings = interleaved(cases, rounds, dict.fromkeys(cases, barrier.wait))
        answers.put(lanes.shown(timings))

    children = [context.Process(target=child) for _ in range(2)]
    for process in children:
        process.start()
    found = [answers.get() for _ in children]
    for process in children:
        process.join()
    return [{**row, "processes": 2} for row in found[0]], []


def features_only(folder: Path, rows: int, rounds: int) -> Result:
    """12 KB a sample, as a student on frozen features reads: from RAM, and from the shards."""
    features = Features.drawn(FEATURES, rows)
    features.write_store(folder / "features")
    resident = features.resident()
    in_ram = f"{OURS}, loaded"
    lanes = Lanes(features, 1, 256)
    loaded = features.open_store(folder / "features", resident_bytes=1 << 40)
    cases = {
        MEMCPY: lanes.case([from_ram(resident)]),
        in_ram: lanes.case([from_store(loaded)]),
        LATER: lanes.case([from_store(read_once(features.open_store(folder / "features"), features))]),
    }
    timings = interleaved(cases, 4 * rounds)
    shutil.rmtree(folder / "features")
    speed = BATCHES * 256 / timings.median(in_ram)
    return lanes.shown(timings), [
        Bar("feature-only feed", speed, 50_000, "samples/s"),
        Bar("feature-only feed, loaded", timings.speed(in_ram, MEMCPY), 0.5, "of memcpy"),
        Bar("feature-only feed, from the shards", timings.speed(LATER, MEMCPY), 0.5, "of memcpy"),
    ]
