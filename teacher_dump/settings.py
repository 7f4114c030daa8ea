"""How a dump is to run, as the user said it; needs no torch, so that a wrong number is refused at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from store.errors import InputError
from teacher_dump.pairs.layouts import PairOptions
from teacher_dump.plan import StorageOptions

LARGEST_SETTING = 1_000_000


@dataclass(frozen=True)
class DumpSettings:
    """How to run a dump. Batches, threads, shard_rows and device are fixed in the plan and repeated by every
    resume.

    batch_videos, batch_texts: rows of one forward. threads: of torch in each worker. shard_rows: None = see
    `plan.execution`. decoders: processes of each worker that decode ahead. time_limit_s, memory_limit_mb: of
    decoding one video. storage: which part of the signals is stored, and how. pairs: which pairs are scored,
    and how they are stored. device: type of that which the workers compute on, where the coordinator's own
    copy of the teacher lies elsewhere.
    """

    batch_videos: int = 32
    batch_texts: int = 256
    threads: int | None = None
    shard_rows: int | None = None
    decoders: int | None = None
    time_limit_s: float = 60.0
    memory_limit_mb: int = 2048
    storage: StorageOptions = field(default_factory=StorageOptions)
    pairs: PairOptions = field(default_factory=PairOptions)
    device: str | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not 0 < value <= LARGEST_SETTING:
                raise InputError(f"{name} is a number from 1 to {LARGEST_SETTING:,}, not {value}")


SERIAL, LOCAL, MOST_WORKERS = "serial", "local", 1024


def checked_executor(text: str) -> str:
    """`text` if it names an executor: serial, local:N or a scheduler's address; raises InputError."""
    kind, _, rest = text.partition(":")
    if text == SERIAL or (kind in ("tcp", "tls", "ws", "wss", "ucx") and rest.startswith("//")):
        return text
    if kind == LOCAL and rest.isascii() and rest.isdigit() and 1 <= int(rest) <= MOST_WORKERS:
        return text
    raise InputError(
        f"an executor is serial, local:N (N workers here) or the address of a scheduler of dask, "
        f"tcp://HOST:8786; not {text!r}"
    )
