"""As much of the JSON API of Google Cloud Storage as gcsfs uses here, in memory: no test of Google's server.

Requests and answers follow cloud.google.com/storage/docs/json_api: objects insert (media and multipart) with
ifGenerationMatch, get with alt=media and ranges, list with prefix.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit


class FakeGcs(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found = re.fullmatch(r".*/b/([^/]+)/o/?(.*)", parts.path)
        with self.server.changing:
            objects = dict(self.server.objects)
        if found is None:
            self._answer(200, {"kind": "storage#bucket", "name": "bucket"})
        elif not found[2]:
            prefix = query.get("prefix", "")
            items = [self._resource(name, objects) for name in sorted(objects) if name.startswith(prefix)]
            self._answer(200, {"kind": "storage#objects", "items": items})
        elif (name := unquote(found[2])) not in objects:
            self._answer(404, {"error": {"code": 404, "message": "No such object"}})
        elif query.get("alt") == "media" or "/download/" in parts.path:
            self._send_media(*objects[name])
        else:
            self._answer(200, self._resource(name, objects))

    def _send_media(self, content: bytes, generation: int) -> None:
        status = 200
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            if int(first) >= len(content):
                self._answer(416, {"error": {"code": 416, "message": "Range not satisfiable"}})
                return
            content, status = content[int(first) : int(last or len(content)) + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("x-goog-generation", str(generation))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        name = query.get("name")
        if query["uploadType"] == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            _, told, media, _ = body.split(b"--" + boundary)
            name = json.loads(told.split(b"\n\n", 1)[1])["name"]
            body = media.split(b"\n\n", 1)[1].removesuffix(b"\n")
        wanted = query.get("ifGenerationMatch")
        with self.server.changing:
            before = self.server.objects.get(name, (b"", 0))[1]
            if wanted is not None and int(wanted) != before:
                self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
                return
            self.server.generation += 1
            self.server.objects[name] = (body, self.server.generation)
            self._answer(200, self._resource(name, self.server.objects))

    def _resource(self, name: str, objects: dict[str, tuple[bytes, int]]) -> dict[str, str]:
        content, generation = objects[name]
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": "bucket",
            "size": str(len(content)),
            "generation": str(generation),
        }

    def _answer(self, status: int, document: dict) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *told: object) -> None:
        pass


@contextlib.contextmanager
def fake_gcs() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeGcs)
    server.objects, server.generation, server.changing = {}, 1, threading.Lock()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
