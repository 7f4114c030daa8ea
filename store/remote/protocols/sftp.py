"""SFTP through fsspec and paramiko: objects are files; a plain rename creates, a POSIX rename replaces.

A plain rename of SFTP fails where the target exists (OpenSSH links and unlinks), so of many that create one
object at once one wins. Hosts have to be known (~/.ssh/known_hosts); user, port, keys and another name for a
host come from ~/.ssh/config and the agent.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Sequence
from io import BytesIO
from stat import S_ISDIR, S_ISREG
from typing import Any
from urllib.parse import unquote, urlsplit

from store.durable import PARTIAL_SUFFIX
from store.remote.location import Location
from store.remote.protocols.base import SILENCE_S, Endpoint, Upload, Versioned, required

BLOCK_BYTES = 1 << 20
SETTLES_S = 5.0


class SftpEndpoint(Endpoint):
    """Objects below sftp://user@host:port/path; one connection, opened when first needed."""

    chained = True

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._paramiko = required("paramiko", "sftp")
        self._root = unquote(urlsplit(location.url).path) or "/"
        self._connecting = threading.Lock()
        self._fs: Any = None
        self._connected = 0.0

    @property
    def _ftp(self) -> Any:
        with self._connecting:
            if self._fs is None:
                self._fs = self._connect()
            return self._fs.ftp

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
        found.ftp.get_channel().settimeout(SILENCE_S)
        self._connected = time.monotonic()
        return found

    def reset(self) -> None:
        """Give the connection up, unless another thread has just opened it and it lives."""
        with self._connecting:
            if self._fs is None:
                return
            transport = self._fs.client.get_transport()
            lives = transport is not None and transport.is_active() and not self._fs.ftp.get_channel().closed
            if lives and time.monotonic() - self._connected < SETTLES_S:
                return
            self._fs.client.close()
            self._fs = None

    def read(self, path: str, start: int, length: int) -> bytes:
        return self.read_versioned_range(path, start, length).content

    def read_versioned_range(self, path: str, start: int, length: int) -> Versioned:
        with self._ftp.open(f"{self._root}/{path}", "rb") as file:
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
                listed = self._ftp.listdir_attr(f"{self._root}/{inner}".rstrip("/"))
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
            with open(upload.file, "rb") as source:
                aside = self._written_aside(upload.path, source)
            self._ftp.posix_rename(aside, f"{self._root}/{upload.path}")

    def create(self, path: str, content: bytes) -> bool:
        ftp = self._ftp
        if self._exists(path):
            return False
        aside = self._written_aside(path, BytesIO(content))
        try:
            ftp.rename(aside, f"{self._root}/{path}")
        except OSError:
            ftp.remove(aside)
            if self._exists(path):
                return False
            raise
        return True

    def _exists(self, path: str) -> bool:
        try:
            self._ftp.stat(f"{self._root}/{path}")
        except FileNotFoundError:
            return False
        return True

    def overwrite(self, path: str, content: bytes) -> None:
        aside = self._written_aside(path, BytesIO(content))
        self._ftp.posix_rename(aside, f"{self._root}/{path}")

    def _written_aside(self, path: str, source: Any) -> str:
        ftp, folder = self._ftp, os.path.dirname(f"{self._root}/{path}")
        self._make_folders(folder)
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
            self._remove_quietly(aside)
            if str(error) == "Failure":
                raise OSError(
                    "the server says no more than 'Failure'; no space or quota left looks so"
                ) from error
            raise
        return str(aside)

    def _remove_quietly(self, path: str) -> None:
        """Delete what was written aside, if the connection still lets us: nothing refers to it."""
        try:
            self._ftp.remove(path)
        except (OSError, EOFError, self._paramiko.SSHException):
            return

    def _make_folders(self, folder: str) -> None:
        missing = []
        while folder not in ("", "/"):
            try:
                self._ftp.stat(folder)
                break
            except FileNotFoundError:
                missing.append(folder)
                folder = os.path.dirname(folder)
        for made in reversed(missing):
            try:
                self._ftp.mkdir(made)
            except OSError:
                self._ftp.stat(made)  # another thread was faster, or it raises what is wrong


def _pieces(start: int, length: int) -> list[tuple[int, int]]:
    """(offset, bytes) of requests that are sent one behind the other, without waiting."""
    return [(start + done, min(BLOCK_BYTES, length - done)) for done in range(0, max(length, 0), BLOCK_BYTES)]


ENDPOINT = SftpEndpoint
