"""MLflow's own tracking server for a group: what it is started with, and how it ends.

Its folder holds all that it needs, for its owner's eyes only:

    mlflow.db, artifacts/    unless they are kept elsewhere
    auth.ini, auth.db        users and hashes of their passwords, with authentication
    secret.key               signs the pages' forms; made here
    server.log               of the last start

No password is on a command line, where other users of the machine could read it.
"""

import contextlib
import importlib.util
import ipaddress
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from mlflow.exceptions import MlflowException

from fnostab.errors import TrackingError
from fnostab.tracking.database import check_writable
from fnostab.tracking.store import checked_address, masked
from fnostab.tracking.ui import wait_until_ready

__all__ = ["ServerSettings", "TrackingServer", "create_admin", "is_loopback", "needs_admin"]

READY_S = 120.0  # PostgreSQL under load takes 30
GRACE_S = 15.0
SHORTEST_PASSWORD = 12  # MLflow's rule
KNOWN_PASSWORD = "password1234"  # that MLflow once came with
INTERNET = (socket.AF_INET, socket.AF_INET6)
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
OWN_VARIABLES = (  # what a user has set for clients, or for another server, is not meant for this one
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    "MLFLOW_REGISTRY_STORE_URI",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
    "MLFLOW_ARTIFACTS_ONLY",
    "MLFLOW_STATIC_PREFIX",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE",
)


@dataclass(frozen=True)
class ServerSettings:
    """How a server is to be run.

    Attributes:
        folder: of the server; made if it does not exist.
        backend: MLflow store address; None is SQLite in the folder.
        artifacts: where artifacts are kept, as a path or ``s3://...``; None is in the folder.
        host: address to listen on.
        port: to listen on.
        names: further names that people open it by, as that of a proxy.
        auth: whether users need a password.
        workers: processes that answer.
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
        """Address that clients use: the machine's name where the server listens everywhere."""
        host = socket.gethostname() if _is_everywhere(self.host) else _in_url(self.host)
        return f"http://{host}:{self.port}"

    @property
    def local_url(self) -> str:
        """Address that this machine reaches it by."""
        local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host)
        return f"http://{local or _in_url(self.host)}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def needs_admin(folder: Path) -> bool:
    """Whether the server in ``folder`` has no administrator yet.

    Raises:
        TrackingError: its database of users can't be read.
    """
    path = folder / "auth.db"
    if not path.exists():
        return True
    try:
        with contextlib.closing(sqlite3.connect(path)) as users:
            (count,) = users.execute("SELECT count(*) FROM users WHERE is_admin").fetchone()
    except sqlite3.Error as error:
        if "no such table" in str(error):
            return True
        raise TrackingError(f"can't read the users in {path}: {error}; restore it from a copy") from error
    return not count


def create_admin(folder: Path, name: str, password: str) -> None:
    """Make the administrator ``name``, in this process: no other one is told the password.

    Raises:
        TrackingError: the extra is missing, the name or password is not accepted, or the folder can't be written.
    """
    check_extra()
    if len(password) < SHORTEST_PASSWORD or password == KNOWN_PASSWORD:
        raise TrackingError(
            f"the administrator's password is not accepted: take one of at least {SHORTEST_PASSWORD} characters "
            "that is no published default"
        )
    path = _private(folder, "auth.db")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow's server says of its own libraries
        from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
    try:
        users = SqlAlchemyStore()
        users.init_db(f"sqlite:///{path}")
        users.create_user(name, password, is_admin=True)
        users.engine.dispose()
    except MlflowException as error:
        raise TrackingError(f"can't make the administrator {name!r}: {error.message.splitlines()[0]}") from None


def check_extra() -> None:
    """Raise a `TrackingError` unless MLflow's authentication is installed."""
    if importlib.util.find_spec("flask_wtf") is None:
        raise TrackingError("authentication needs an extra of this program: `pip install 'fnostab[auth]'`")


class TrackingServer:
    """A running server: starts on entering, has ended with all its processes on leaving.

    Args:
        settings: how to run it.

    Raises:
        TrackingError: the folder, the store, the extra or the port can't be had, or MLflow does not start.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        make_folder(settings.folder)
        self.backend = checked_address(settings.backend or f"sqlite:///{_private(settings.folder, 'mlflow.db')}")
        if self.backend.startswith("http"):
            raise TrackingError(f"{masked(self.backend)} is a server already; a backend is a database")
        check_writable(self.backend)
        if settings.auth:
            check_extra()
        self.artifacts = _artifacts(settings)
        self.log = settings.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        settings = self.settings
        environment = _environment(settings, self.backend)
        _check_port(settings.host, settings.port)
        with open(_private(settings.folder, self.log.name), "wb") as log:
            self._process = subprocess.Popen(
                _command(settings, self.artifacts),
                cwd=settings.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches this program alone, which then ends them in order
                umask=0o077,
            )
        try:
            wait_until_ready(settings.local_url, READY_S, self._process)
        except BaseException as error:
            ended = self._process.poll() is not None
            self.stop()
            if isinstance(error, TrackingError) and ended:
                raise self.failure() from None
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Of its database, without the password."""
        return masked(self.backend)

    def wait(self) -> None:
        """Wait until it ends by itself, which is a failure.

        Raises:
            TrackingError: it did.
        """
        if self._process is not None:
            self._process.wait()
            raise self.failure()

    def stop(self) -> None:
        """End it and all its processes: requests at work may finish first."""
        if self._process is None:
            return
        try:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        finally:  # a second Ctrl-C too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # what is left of its group
            self._process.wait()

    def failure(self) -> TrackingError:
        """What its log says of its end."""
        status = self._process.returncode if self._process else None
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        causes = [line for line in lines if "Error" in line or "Exception" in line]
        last = masked((causes or lines or ["it said nothing"])[-1])[:240]
        return TrackingError(f"MLflow's server ended with status {status}: {last}; all of it is in {self.log}")


def make_folder(folder: Path) -> None:
    """Make the server's folder, which only its owner may enter, and see that it can be written.

    Raises:
        TrackingError: it can't.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(folder / "server.log", os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError as error:
        raise TrackingError(
            f"can't write the server's folder {folder}: {error.strerror}; name another with --folder"
        ) from error


def _artifacts(settings: ServerSettings) -> str:
    place = settings.artifacts or str(settings.folder / "artifacts")
    if "://" in place:
        return place
    path = Path(place).absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise TrackingError(f"can't keep artifacts in {path}: {error.strerror}; name another place") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise TrackingError(f"can't keep artifacts in {path}: it can't be written; name another place")
    return str(path)


def _check_port(host: str, port: int) -> None:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            probe.bind(address)
    except OSError as error:
        raise TrackingError(
            f"can't listen on {host} port {port}: {error.strerror or error}; name another --port or --host"
        ) from error


def _command(settings: ServerSettings, artifacts: str) -> list[str]:
    server = [sys.executable, "-m", "mlflow", "server", "--host", settings.host, "--port", str(settings.port)]
    server += ["--workers", str(settings.workers), "--serve-artifacts", "--artifacts-destination", artifacts]
    server += ["--allowed-hosts", ",".join(_allowed_hosts(settings))]
    origins = _allowed_origins(settings)
    server += ["--cors-allowed-origins", ",".join(origins)] if origins else []
    return [*server, "--app-name", "basic-auth"] if settings.auth else server


def _environment(settings: ServerSettings, backend: str) -> dict[str, str]:
    """Of the server: holds the backend's password, which a command line would show to everyone."""
    values = {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}
    values["MLFLOW_BACKEND_STORE_URI"] = backend
    if settings.auth:
        values["MLFLOW_AUTH_CONFIG_PATH"] = str(_auth_config(settings.folder))
        values.setdefault("MLFLOW_FLASK_SERVER_SECRET_KEY", _secret_key(settings.folder))
    return values


def _auth_config(folder: Path) -> Path:
    """Of MLflow's basic authentication: users may add to each other's experiments, but not delete them."""
    path = _private(folder, "auth.ini")
    users = str(_private(folder, "auth.db")).replace("%", "%%")
    path.write_text(
        "[mlflow]\n"
        "default_permission = EDIT\n"
        f"database_uri = sqlite:///{users}\n"
        "admin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    return path


def _secret_key(folder: Path) -> str:
    path = _private(folder, "secret.key")
    if not path.read_text().strip():
        path.write_text(secrets.token_hex(32) + "\n")
    return path.read_text().strip()


def _private(folder: Path, name: str) -> Path:
    """Absolute path of a file that only its owner may read; it is made if there is none."""
    path = (folder / name).absolute()
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise TrackingError(f"can't write {path}: {error.strerror}; name another --folder") from error
    return path


def _is_everywhere(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _own_names(settings: ServerSettings) -> list[str]:
    """What this machine is called on the addresses that the server listens on, but for loopback."""
    if is_loopback(settings.host):
        return []
    if not _is_everywhere(settings.host):
        return [_in_url(settings.host)]
    addresses = [a.address for each in psutil.net_if_addrs().values() for a in each if a.family in INTERNET]
    reachable = [a for a in addresses if "%" not in a and not is_loopback(a)]
    return list(dict.fromkeys([socket.gethostname(), socket.getfqdn(), *map(_in_url, reachable)]))


def _allowed_hosts(settings: ServerSettings) -> list[str]:
    """Host headers that are answered: others come from a page that gave its own name this address."""
    any_port = [f"{host.replace('[', '[[]', 1)}:*" for host in LOOPBACK_HOSTS]  # as through a tunnel
    own = [f"{name}:{settings.port}" for name in _own_names(settings)]
    given = [each for name in settings.names for each in (name, f"{name}:{settings.port}")]
    return [*LOOPBACK_HOSTS, *any_port, *own, *given]


def _allowed_origins(settings: ServerSettings) -> list[str]:
    """Pages that may change records: the server's own, under each of its names."""
    own = [f"http://{name}:{settings.port}" for name in (*_own_names(settings), *settings.names)]
    return [*own, *(f"https://{name}" for name in settings.names)]
