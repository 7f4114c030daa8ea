"""A web server that keeps to ranges, and fails when it is told to; `python -m` it to have one to kill."""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class RangeServer(ThreadingHTTPServer):
    """Serves `folder` until `stop`, on a free port or `port`.

    asked: how often each (path, first byte) was asked for. unavailable: so many answers from now on are 503.
    cut: so many answers from now on end in the middle. pause_s: before every 10th of an answer.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.folder = folder
        self.asked: Counter[tuple[str, int]] = Counter()
        self.unavailable = self.cut = 0
        self.pause_s = 0.0
        self.guard = threading.Lock()
        self._connections: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def process_request(self, request, client_address) -> None:
        self._connections.append(request)
        super().process_request(request, client_address)

    def start(self) -> RangeServer:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """As if it were killed: connections are cut too."""
        self.shutdown()
        self.server_close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def one_of(self, kind: str) -> bool:
        with self.guard:
            left = getattr(self, kind)
            setattr(self, kind, max(left - 1, 0))
            return left > 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        file = self.server.folder / path
        if self.server.one_of("unavailable"):
            self.answer(503, b"")
            return
        if not file.is_file():
            self.answer(404, b"")
            return
        status = file.stat()
        tag = f'"{status.st_mtime_ns}-{status.st_size}"'
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        start, behind = (int(found[1]), int(found[2]) + 1) if found else (0, status.st_size)
        with self.server.guard:
            self.server.asked[path, start] += 1
        if found and start >= status.st_size:
            self.answer(416, b"", tag)
            return
        with open(file, "rb") as opened:
            opened.seek(start)
            self.answer(206 if found else 200, opened.read(behind - start), tag)

    def answer(self, status: int, content: bytes, tag: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        if content and self.server.one_of("cut"):
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        step = -(-len(content) // 10 if self.server.pause_s else -len(content)) or 1
        for begin in range(0, len(content), step):
            time.sleep(self.server.pause_s)
            self.wfile.write(content[begin : begin + step])

    def log_message(self, *words) -> None:
        pass


if __name__ == "__main__":
    with RangeServer(Path(sys.argv[1]), int(sys.argv[2])) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
