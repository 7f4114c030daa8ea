"""fsspec's SFTP with the care that ssh takes: ~/.ssh/config is read, a host that is not known is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from store.remote.protocols.base import CONNECT_S, SILENCE_S


class KnownHostsFileSystem(SFTPFileSystem):
    """SFTPFileSystem that refuses hosts whose key stands in none of `known_hosts`."""

    def __init__(self, host: str, known_hosts: tuple[Path, ...], **ssh_kwargs: Any) -> None:
        self.known_hosts = known_hosts
        super().__init__(host, host_key_policy="reject", **ssh_kwargs)

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        for path in self.known_hosts:
            if path.is_file():
                self.client.load_system_host_keys(str(path))
        self.client.set_missing_host_key_policy(self.host_key_policy)
        self.client.connect(self.host, **self.ssh_kwargs)
        self.ftp = self.client.open_sftp()


def connection_options(url: str, folder: Path | None = None) -> dict[str, Any]:
    """Arguments of `KnownHostsFileSystem` for a URL, completed from `folder`/config (~/.ssh) as ssh does."""
    folder = folder or Path.home() / ".ssh"
    parts = urlsplit(url)
    config = folder / "config"
    told: dict[str, Any] = {}
    if config.is_file():
        told = dict(paramiko.SSHConfig.from_path(str(config)).lookup(parts.hostname or ""))
    user = unquote(parts.username) if parts.username else told.get("user")
    own = told.get("userknownhostsfile", "").split()
    known = [Path(name).expanduser() for name in own] or [folder / "known_hosts"]
    options = {
        "host": told.get("hostname", parts.hostname),
        "port": parts.port or int(told.get("port", 22)),
        "username": user,
        "key_filename": [str(Path(name).expanduser()) for name in told.get("identityfile", [])] or None,
        "known_hosts": (*known, Path("/etc/ssh/ssh_known_hosts")),
        "timeout": CONNECT_S,
        "banner_timeout": CONNECT_S,
        "auth_timeout": SILENCE_S,
        "channel_timeout": CONNECT_S,
    }
    return {name: value for name, value in options.items() if value is not None}
