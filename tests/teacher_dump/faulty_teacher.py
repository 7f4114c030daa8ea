"""A colour teacher in whose process something goes wrong once: who removes the flag file does the fault."""

from __future__ import annotations

import errno
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np

from store.inputs.decode_pool import DecodePool
from store.inputs.frames import decode_view
from store.shards import ShardFile
from teacher_dump.workers import jobs
from tests.teacher_dump.colour_teacher import ColourTeacher

DEADLY = "2_blue.mp4"
MOST_MEMORY_BYTES = 4 << 30
WRITE_SHARD = ShardFile._write


class FaultyTeacher(ColourTeacher):
    """fault: a key of FAULTS, done by the first process that encodes while `flag` is there. pause_s: of every
    batch, so that there is time to do something to the dump from outside.
    """

    def __init__(self, fault: str = "", flag: Path = Path("none"), pause_s: float = 0.0):
        super().__init__()
        self.fault, self.flag, self.pause_s = fault, flag, pause_s
        jobs.DecodePool = partial(DecodePool, decoder=deadly_decoder) if fault == "decoder" else DecodePool

    def encode_videos(self, frames_BMYXC, frame_valid_BM):
        time.sleep(self.pause_s)
        try:
            self.flag.unlink()
        except FileNotFoundError:
            pass
        else:
            FAULTS[self.fault]()
        return super().encode_videos(frames_BMYXC, frame_valid_BM)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def take_memory() -> None:
    """Until whoever watches this process ends it."""
    taken = []
    while len(taken) << 25 < MOST_MEMORY_BYTES:
        taken.append(np.ones(1 << 25, dtype=np.uint8))
        time.sleep(0.1)
    raise AssertionError(f"nobody minded {MOST_MEMORY_BYTES} bytes")


def fill_the_disk() -> None:
    """No shard of this process has room from now on; what it shares with its decoders lies elsewhere."""

    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ShardFile._write = no_room


def free_the_disk() -> None:
    ShardFile._write = WRITE_SHARD


def fail_once(owner: object, name: str) -> None:
    """The next call of `owner.name` raises EIO, as a network file system does that lost its server."""
    real = getattr(owner, name)

    def failing(*arguments, **options):
        setattr(owner, name, real)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    setattr(owner, name, failing)


def deadly_decoder(path, view, video_id):
    """Dies over one of the videos, whenever it comes."""
    if path.name == DEADLY:
        os.kill(os.getpid(), signal.SIGSEGV)
    return decode_view(path, view, video_id)


FAULTS = {
    "": lambda: None,
    "decoder": lambda: None,
    "kill": kill,
    "memory": take_memory,
    "disk": fill_the_disk,
    "write": partial(fail_once, ShardFile, "_write"),
    "fsync": partial(fail_once, os, "fsync"),
    "read": partial(fail_once, os, "preadv"),
    "rename": partial(fail_once, os, "replace"),
}
