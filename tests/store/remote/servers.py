"""Servers on loopback, started for a test and stopped after it: S3 (moto), nginx, OpenSSH, one that fails."""

from __future__ import annotations

import contextlib
import getpass
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

STARTS_S = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Served:
    """A server process; `stop` and `start` again at the same port."""

    def __init__(self, command: Callable[[int], list[str]], **environment: str) -> None:
        self.port = free_port()
        self._command = command(self.port)
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        ends = time.monotonic() + STARTS_S
        while time.monotonic() < ends:
            assert self._process.poll() is None, f"{self._command[0]} ended with {self._process.returncode}"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise AssertionError(f"{self._command[0]} did not listen within {STARTS_S} s")

    def stop(self) -> None:
        """kill -9, connections and all."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def required_binary(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


def s3_server() -> Served:
    pytest.importorskip("moto", reason="no S3 server: pip install .[dev]")
    code = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
    return Served(lambda port: [sys.executable, "-c", code, str(port)])


def nginx(folder: Path, work: Path) -> Served:
    """Serves `folder`; keeps its files in `work`."""
    binary = required_binary("nginx")
    work.mkdir(parents=True, exist_ok=True)

    def command(port: int) -> list[str]:
        temporary = "".join(
            f"{kind}_temp_path {work}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (work / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {work}/pid; error_log {work}/error.log;\n"
            "events { worker_connections 64; }\n"
            f"http {{ access_log off; {temporary}\n"
            f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
        )
        return [binary, "-p", str(work), "-c", str(work / "nginx.conf"), "-e", str(work / "error.log")]

    return Served(command)


def sshd(home: Path, options: str = "") -> Served:
    """An SFTP server for this user; `home`/.ssh gets the key, and the host's, that it takes.

    options: of the SFTP server (-R: read only).
    """
    binary, keygen = required_binary("sshd"), required_binary("ssh-keygen")
    folder = home / ".ssh"
    folder.mkdir(parents=True)
    for name in ("host", "user"):
        subprocess.run(
            [keygen, "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(folder / name)], check=True
        )
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    with contextlib.suppress(OSError):
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd drops its rights, if we are root

    def command(port: int) -> list[str]:
        (folder / "sshd_config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPermitRootLogin yes\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\n"
            f"Subsystem sftp internal-sftp {options}\n"
        )
        (folder / "config").write_text(
            f"Host 127.0.0.1\n  User {getpass.getuser()}\n  IdentityFile {folder}/user\n"
        )
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
        return [binary, "-D", "-e", "-f", str(folder / "sshd_config")]

    return Served(command)


Fault = Callable[["FaultyHandler"], bool]


class FaultyHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files with ranges; `fault` may answer instead, and says whether it did."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if not self.server.fault(self):
            self.send_part()

    def send_part(self, cut_after: int | None = None) -> None:
        """The range that was asked for; cut_after: close the connection after so many bytes of it."""
        file = Path(self.directory + self.path)
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        if int(first) >= max(len(content), 1):
            self.send_error(416)
            return
        part = content[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[:cut_after])
        if cut_after is not None:
            self.close_connection = True

    def log_message(self, *told: object) -> None:
        pass


@contextlib.contextmanager
def faulty_server(folder: Path, fault: Fault = lambda handler: False) -> Iterator[http.server.HTTPServer]:
    """An HTTP server over `folder`; `asked` lists the paths of its requests, `url` is where it listens."""

    class Handler(FaultyHandler):
        def __init__(self, *arguments, **keywords) -> None:
            super().__init__(*arguments, directory=str(folder), **keywords)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.fault = [], fault
    server.handle_error = lambda request, address: None  # clients that hang up are what is tested
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
