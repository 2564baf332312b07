"""Settings of a tracking server: how it runs, its names, and which pages may change its records."""

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERNET = (socket.AF_INET, socket.AF_INET6)
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class ServerSettings:
    """Settings of a tracking server.

    Attributes:
        folder: folder of the server, created if it does not exist.
        backend: address of the database; None is SQLite in the folder.
        artifacts: where artifacts are kept, as a path or ``s3://...``; None is in the folder.
        names: further host names by which users open it, such as a proxy's.
        auth: whether users log in with passwords.
        workers: number of processes that answer requests.
    """

    folder: Path
    backend: str | None = None
    artifacts: str | None = None
    host: str = "127.0.0.1"
    port: int = 5000
    names: tuple[str, ...] = ()
    auth: bool = False
    workers: int = 4

    @property
    def url(self) -> str:
        """Address for clients: with the machine's name if the server listens on all interfaces."""
        host = socket.gethostname() if _is_everywhere(self.host) else _in_url(self.host)
        return f"http://{host}:{self.port}"

    @property
    def local_url(self) -> str:
        """Address for clients on this machine."""
        local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host)
        return f"http://{local or _in_url(self.host)}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed_hosts(settings: ServerSettings) -> list[str]:
    """Host headers that are accepted; others may come from a page whose own name points here (DNS rebinding)."""
    any_port = [f"{host.replace('[', '[[]', 1)}:*" for host in LOOPBACK_HOSTS]  # for example through a tunnel
    own = [f"{name}:{settings.port}" for name in _own_names(settings)]
    given = [each for name in settings.names for each in (name, f"{name}:{settings.port}")]
    return [*LOOPBACK_HOSTS, *any_port, *own, *given]


def allowed_origins(settings: ServerSettings) -> list[str]:
    """Pages that may change records: the server's own, under each of its names."""
    own = [f"http://{name}:{settings.port}" for name in (*_own_names(settings), *settings.names)]
    return [*own, *(f"https://{name}" for name in settings.names)]


def _own_names(settings: ServerSettings) -> list[str]:
    """Names of this machine on the addresses that the server listens on, without loopback."""
    if is_loopback(settings.host):
        return []
    if not _is_everywhere(settings.host):
        return [_in_url(settings.host)]
    addresses = [a.address for each in psutil.net_if_addrs().values() for a in each if a.family in INTERNET]
    reachable = [a for a in addresses if "%" not in a and not is_loopback(a)]
    return list(dict.fromkeys([socket.gethostname(), socket.getfqdn(), *map(_in_url, reachable)]))


def _is_everywhere(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
