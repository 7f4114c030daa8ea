"""One writer at a time: a lock file with a random token and a heartbeat, no host or user names.

A writer that dies stops its heartbeat, and the next one takes the lock over; a writer that was
taken over (it slept too long) finds another's token before its next commit and stops.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from pathlib import Path

from store.durable import read_json, write_file
from store.errors import DamagedCacheError, LockedCacheError

LOCK = "writer.lock"
BEAT_S = 1.0


class WriterLock:
    """Holds `folder`/writer.lock from construction to `release`.

    beat_s: seconds between heartbeats. A lock found without a beat for `5 * beat_s` is a dead
    writer's. Raises LockedCacheError if a living writer holds it.
    """

    def __init__(self, folder: Path, beat_s: float = BEAT_S) -> None:
        self._path = folder / LOCK
        self._token = secrets.token_hex(16)
        self._beat_s = beat_s
        self._stop = threading.Event()
        self._take()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            self._take_over()
        else:
            with open(descriptor, "wb") as file:
                file.write(self._content(0))

    def _take_over(self) -> None:
        before = self._read()
        deadline = time.monotonic() + 5 * self._beat_s
        while time.monotonic() < deadline:
            time.sleep(self._beat_s / 2)
            now = self._read()
            if now != before:
                raise LockedCacheError(
                    f"another process is writing {self._path.parent.name}; wait for it, or stop it first"
                )
        write_file(self._path, self._content(0))
        time.sleep(self._beat_s / 2)
        self.check()

    def _read(self) -> object:
        """What the lock file says; a torn or vanished one reads as None."""
        try:
            return read_json(self._path, 1 << 12)
        except (FileNotFoundError, DamagedCacheError):
            return None

    @property
    def token(self) -> str:
        """By which this writer is told from others."""
        return self._token

    def _content(self, beats: int) -> bytes:
        return json.dumps({"token": self._token, "beats": beats}).encode()

    def _beat(self) -> None:
        beats = 0
        while not self._stop.wait(self._beat_s):
            beats += 1
            try:
                if not self._is_mine():
                    return
                write_file(self._path, self._content(beats))
            except OSError:
                # A disk that is full or away for a moment costs a beat, not the lock; `check` tells if it
                # was too long.
                continue

    def _is_mine(self) -> bool:
        found = self._read()
        return isinstance(found, dict) and found.get("token") == self._token

    def check(self) -> None:
        """Raise LockedCacheError if another writer took the lock over."""
        if not self._is_mine():
            raise LockedCacheError(f"another process took over {self._path.parent.name}; this one stops")

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._is_mine():
            self._path.unlink()


def require_writer(folder: Path, token: str) -> None:
    """Raise LockedCacheError unless the writer with that `token` still holds the lock of `folder`.

    A worker asks so: its coordinator may have died, and another may be writing by now.
    """
    try:
        held = read_json(folder / LOCK, 1 << 12).get("token") == token
    except (FileNotFoundError, DamagedCacheError, AttributeError):
        held = False
    if not held:
        raise LockedCacheError(f"{folder.name}: the dump that this task belongs to is gone; it stops")
