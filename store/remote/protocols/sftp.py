"""SFTP through fsspec and paramiko: objects are files; a plain rename creates, a POSIX rename replaces.

A plain rename of SFTP fails where the target exists (OpenSSH links and unlinks), so of many that create one
object at once one wins. Hosts have to be known (~/.ssh/known_hosts); user, port, keys and another name for a
host come from ~/.ssh/config and the agent.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from stat import S_ISDIR, S_ISREG
from typing import Any
from urllib.parse import unquote, urlsplit

from store.durable import PARTIAL_SUFFIX
from store.remote.location import Location
from store.remote.protocols.base import SILENCE_S, Endpoint, Upload, Versioned, required

BLOCK_BYTES = 1 << 20
SETTLES_S = 5.0
CHANNELS = 8
"""OpenSSH allows ten sessions a connection; the one that fsspec opens is another."""


class SftpEndpoint(Endpoint):
    """Objects below sftp://user@host:port/path; one connection, opened when first needed.

    A channel of paramiko's serves one thread at a time: two that wait on one take each other's answers. So
    each call has a channel to itself, up to CHANNELS at once.
    """

    chained = True

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._paramiko = required("paramiko", "sftp")
        self._root = unquote(urlsplit(location.url).path) or "/"
        self._changing = threading.Lock()
        self._turns = threading.BoundedSemaphore(CHANNELS)
        self._fs: Any = None
        self._connected = 0.0
        self._free: list[Any] = []

    @contextlib.contextmanager
    def _channel(self) -> Iterator[Any]:
        """A channel of this connection for one call; given back unless something odd happened to it."""
        with self._turns:
            with self._changing:
                if self._fs is None:
                    self._fs = self._connect()
                    self._free = []
                connection = self._fs
                channel = self._free.pop() if self._free else None
            if channel is None:
                channel = connection.client.open_sftp()
                channel.get_channel().settimeout(SILENCE_S)
            sound = False
            try:
                yield channel
                sound = True
            except (FileNotFoundError, PermissionError):
                sound = True  # the server has answered
                raise
            finally:
                with self._changing:
                    if sound and self._fs is connection:
                        self._free.append(channel)
                    else:
                        channel.close()

    def _connect(self) -> Any:
        from store.remote.known_hosts import KnownHostsFileSystem, connection_options

        try:
            found = KnownHostsFileSystem(skip_instance_cache=True, **connection_options(self.location.url))
        except (self._paramiko.AuthenticationException, self._paramiko.BadHostKeyException) as error:
            raise PermissionError(str(error)) from error
        except self._paramiko.SSHException as error:
            if "known_hosts" in str(error) or "No authentication" in str(error):
                raise PermissionError(f"{error}; ssh there once, to see and accept its key") from error
            raise
        self._connected = time.monotonic()
        return found

    def reset(self) -> None:
        """Give the connection up, unless another thread has just opened it and it lives."""
        with self._changing:
            if self._fs is None:
                return
            transport = self._fs.client.get_transport()
            lives = transport is not None and transport.is_active()
            if lives and time.monotonic() - self._connected < SETTLES_S:
                return
            self._fs.client.close()
            self._fs = None

    def read(self, path: str, start: int, length: int) -> bytes:
        return self.read_versioned_range(path, start, length).content

    def read_versioned_range(self, path: str, start: int, length: int) -> Versioned:
        with self._channel() as ftp, ftp.open(f"{self._root}/{path}", "rb") as file:
            status = file.stat()
            there = min(length, (status.st_size or 0) - start)
            content = b"".join(file.readv(_pieces(start, there))) if there > 0 else b""
            return Versioned(content, f"{status.st_mtime}-{status.st_size}")

    def sizes(self, folder: str) -> dict[str, int]:
        found: dict[str, int] = {}
        waiting = [folder]
        while waiting:
            inner = waiting.pop()
            try:
                with self._channel() as ftp:
                    listed = ftp.listdir_attr(f"{self._root}/{inner}".rstrip("/"))
            except FileNotFoundError:
                continue
            for entry in listed:
                path = f"{inner}/{entry.filename}" if inner else entry.filename
                if S_ISDIR(entry.st_mode or 0):
                    waiting.append(path)
                elif S_ISREG(entry.st_mode or 0):
                    found[path] = entry.st_size or 0
        return found

    def put(self, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            with open(upload.file, "rb") as source, self._channel() as ftp:
                aside = self._written_aside(ftp, upload.path, source)
                ftp.posix_rename(aside, f"{self._root}/{upload.path}")

    def create(self, path: str, content: bytes) -> bool:
        with self._channel() as ftp:
            if self._exists(ftp, path):
                return False
            aside = self._written_aside(ftp, path, BytesIO(content))
            try:
                ftp.rename(aside, f"{self._root}/{path}")
            except OSError:
                ftp.remove(aside)
                if self._exists(ftp, path):
                    return False
                raise
            return True

    def _exists(self, ftp: Any, path: str) -> bool:
        try:
            ftp.stat(f"{self._root}/{path}")
        except FileNotFoundError:
            return False
        return True

    def overwrite(self, path: str, content: bytes) -> None:
        with self._channel() as ftp:
            aside = self._written_aside(ftp, path, BytesIO(content))
            ftp.posix_rename(aside, f"{self._root}/{path}")

    def _written_aside(self, ftp: Any, path: str, source: Any) -> str:
        folder = os.path.dirname(f"{self._root}/{path}")
        self._make_folders(ftp, folder)
        aside = f"{folder}/{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
        written = 0
        try:
            with ftp.open(aside, "wbx") as target:
                target.set_pipelined(True)
                while block := source.read(BLOCK_BYTES):
                    target.write(block)
                    written += len(block)
            if ftp.stat(aside).st_size != written:
                raise OSError("the server kept fewer bytes than it was sent; a full disk or quota looks so")
        except OSError as error:
            self._remove_quietly(ftp, aside)
            if str(error) == "Failure":
                raise OSError(
                    "the server says no more than 'Failure'; no space or quota left looks so"
                ) from error
            raise
        return aside

    def _remove_quietly(self, ftp: Any, path: str) -> None:
        """Delete what was written aside, if the connection still lets us: nothing refers to it."""
        with contextlib.suppress(OSError, EOFError, self._paramiko.SSHException):
            ftp.remove(path)

    def _make_folders(self, ftp: Any, folder: str) -> None:
        missing = []
        while folder not in ("", "/"):
            try:
                ftp.stat(folder)
                break
            except FileNotFoundError:
                missing.append(folder)
                folder = os.path.dirname(folder)
        for made in reversed(missing):
            try:
                ftp.mkdir(made)
            except PermissionError:
                raise
            except OSError:
                ftp.stat(made)  # another thread was faster, or it raises what is wrong


def _pieces(start: int, length: int) -> list[tuple[int, int]]:
    """(offset, bytes) of requests that are sent one behind the other, without waiting."""
    return [(start + done, min(BLOCK_BYTES, length - done)) for done in range(0, max(length, 0), BLOCK_BYTES)]


ENDPOINT = SftpEndpoint
