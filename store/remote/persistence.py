"""Trying again: what a network forgives is tried with growing pauses, then one line names the object.

Only errors that pass by themselves are worth another try: a connection cut, a server that is overloaded or
restarts, an answer that stops. Whatever the server means (no such object, not allowed, no space) is told at
once.
"""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from store.errors import CacheError, MissingFileError, RemoteError
from store.remote.location import redacted

_log = logging.getLogger(__name__)
Value = TypeVar("Value")
PATIENT_TRIES = 3
"""After so many somebody who waits is told that it goes on."""

PASSING_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
PASSING_ERRNO = {errno.EBUSY, errno.EREMOTEIO, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.ESTALE}
FULL_ERRNO = {errno.ENOSPC, errno.EDQUOT}
FULL_WORDS = ("quota", "insufficient storage", "no space", "limit exceeded", "storage limit")
PASSING_NAMES = {
    "ClientConnectionError",  # aiohttp
    "ClientPayloadError",
    "HTTPClientError",  # botocore
    "ConnectionError",
    "ResponseParserError",
    "IncompleteRead",
    "SSHException",  # paramiko
    "NoValidConnectionsError",
    "TransportError",  # google-auth, httpx
    "FSTimeoutError",
}
"""Errors of the protocols' libraries, which may not be installed, by the name of a base."""


CLOSED = "Socket is closed"
"""All that paramiko says of a connection that another thread found broken."""


@dataclass(frozen=True)
class Patience:
    """How often something is tried, and for how long at most between two tries."""

    attempts: int = 6
    first_pause_s: float = 0.5
    longest_pause_s: float = 20.0

    def pauses(self) -> Iterator[float]:
        """Seconds before each further try: doubling, and drawn, lest many come back at once."""
        for attempt in range(self.attempts - 1):
            yield min(self.first_pause_s * 2**attempt, self.longest_pause_s) * random.uniform(0.5, 1.0)


def persistently(
    act: Callable[[], Value],
    what: str,
    patience: Patience,
    reset: Callable[[], None] | None = None,
    stop: threading.Event | None = None,
) -> Value:
    """`act()`, again while its errors are of the passing kind; `reset` runs before each further try.

    what: the object and where it lies, for the error. stop: set, it ends the waiting. Raises MissingFileError
    for what is not there, RemoteError for all else but errors of the cache itself, which go through.
    """
    pauses = patience.pauses()
    began = time.monotonic()
    for attempt in range(1, patience.attempts + 1):
        try:
            return act()
        except CacheError:
            raise
        except Exception as error:
            passing = is_passing(error)
            pause = next(pauses, None) if passing else None
            if pause is None:
                took = time.monotonic() - began
                raise _told(what, error, attempt if passing else 0, took) from error
            if attempt == PATIENT_TRIES:
                _log.warning("%s: %s; still trying, up to %d times", what, _reason(error), patience.attempts)
            if (stop or threading.Event()).wait(pause):
                raise RemoteError(f"{what}: given up, since another object failed") from error
            if reset is not None:
                reset()
    raise AssertionError("the last attempt either returns or raises")


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    status = _own_status(error)
    if status is not None:
        return status in PASSING_STATUS
    if is_full(error) or isinstance(error, PermissionError | FileNotFoundError | FileExistsError):
        return False
    if isinstance(error, ConnectionError | TimeoutError | EOFError):
        return True
    if isinstance(error, OSError) and str(error) == CLOSED:
        return True
    names = {base.__name__ for base in type(error).__mro__}
    if names & PASSING_NAMES or (isinstance(error, OSError) and error.errno in PASSING_ERRNO):
        return True
    return status_of(error) in PASSING_STATUS


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of any library tells, or what caused it; None if none does."""
    status = _own_status(error)
    cause = error.__cause__
    return status_of(cause) if status is None and isinstance(cause, Exception) else status


def _own_status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    told = [
        getattr(error, "status", None),
        getattr(error, "code", None),
        getattr(response, "status_code", None),
    ]
    if isinstance(response, dict):  # botocore
        told.append(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    for status in told:
        if isinstance(status, str) and status.isdigit():
            status = int(status)
        if type(status) is int and 300 <= status < 600:
            return status
    return None


def is_full(error: BaseException) -> bool:
    """Whether the server has no more room for us."""
    if isinstance(error, OSError) and error.errno in FULL_ERRNO:
        return True
    return status_of(error) == 507 or any(word in str(error).lower() for word in FULL_WORDS)


def _reason(error: Exception) -> str:
    """What a library says, in one line and without secrets."""
    return redacted(" ".join(str(error).split()))[:300] or type(error).__name__


def _told(what: str, error: Exception, attempts: int, took_s: float) -> CacheError:
    """One line for `error`: the object, the reason, what to do."""
    reason = _reason(error)
    status = status_of(error)
    if attempts:
        return RemoteError(
            f"{what}: tried {attempts} times in {took_s:.0f} s, the last error was: {reason}; "
            "the same command goes on where this one ended"
        )
    if is_full(error):
        return RemoteError(f"{what}: no space or quota is left ({reason}); make room, then run it again")
    if isinstance(error, PermissionError) or status in (401, 403) or reason.startswith("Forbidden"):
        return RemoteError(f"{what}: permission denied ({reason}); ask its owner, or check your credentials")
    if isinstance(error, FileNotFoundError) or status == 404:
        return MissingFileError(f"{what}: is not there ({reason})")
    return RemoteError(f"{what}: {type(error).__name__}: {reason}")
