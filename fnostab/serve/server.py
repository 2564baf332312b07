"""Start and stop MLflow's own tracking server for a group.

Its folder holds all that it needs, and only its owner can read it:

    mlflow.db, artifacts/    unless they are kept elsewhere
    auth.ini, auth.db        users and hashes of their passwords, with authentication
    secret.key               key that signs web forms, created here
    server.log               output since the last start

No password is on a command line, where other users of the machine could read it.
"""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from fnostab.errors import TrackingError, os_errors_as
from fnostab.serve.settings import ServerSettings, allowed_hosts, allowed_origins
from fnostab.tracking.pages.ui import how_server_ended, server_command, server_environment, wait_until_ready
from fnostab.tracking.store.database import check_writable
from fnostab.tracking.store.errors import masked
from fnostab.tracking.store.passwords import auth_config, check_extra, private, secret_key
from fnostab.tracking.store.store import checked_address

READY_S = 600.0  # PostgreSQL under load takes 30 s, a busy machine minutes
GRACE_S = 15.0


class TrackingServer:
    """Context manager that starts a tracking server, and ends it with all its processes on exit.

    Args:
        settings: settings of the server.

    Raises:
        TrackingError: the folder, the store or the port can't be used, the extra is missing, or MLflow does not start.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        make_folder(settings.folder)
        self.backend = checked_address(settings.backend or f"sqlite:///{private(settings.folder, 'mlflow.db')}")
        if self.backend.startswith("http"):
            raise TrackingError(f"{masked(self.backend)} is an MLflow server, expected a database")
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
        with open(private(settings.folder, self.log.name), "wb") as log:
            self._process = subprocess.Popen(
                _command(settings, self.artifacts),
                cwd=settings.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches this program alone, which then ends the server in order
                umask=0o077,
            )
        try:
            wait_until_ready(settings.local_url, READY_S, self._process, self.log)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Address of the server's database, without the password."""
        return masked(self.backend)

    def wait(self) -> None:
        """Wait until the server ends by itself, which is a failure.

        Raises:
            TrackingError: the server ended.
        """
        if self._process is not None:
            raise TrackingError(how_server_ended(self._process.wait(), self.log))

    def stop(self) -> None:
        """End the server and all its processes; running requests have `GRACE_S` to finish."""
        if self._process is None:
            return
        try:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        finally:  # also after a second Ctrl-C
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # remaining processes of its group
            self._process.wait()


def make_folder(folder: Path) -> None:
    """Create the server's folder, which only its owner may enter, and check that it can be written.

    Raises:
        TrackingError: the folder can't be created or written.
    """
    with os_errors_as(TrackingError, f"can't write the server's folder {folder}", "name another with --folder"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # also if it existed before
        os.close(os.open(folder / "server.log", os.O_WRONLY | os.O_CREAT, 0o600))


def _artifacts(settings: ServerSettings) -> str:
    place = settings.artifacts or str(settings.folder / "artifacts")
    if "://" in place:
        return place
    path = Path(place).absolute()
    with os_errors_as(TrackingError, f"can't keep artifacts in {path}", "name another place"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise TrackingError(f"can't keep artifacts in {path}: it can't be written; name another place")
    return str(path)


def _check_port(host: str, port: int) -> None:
    with os_errors_as(TrackingError, f"can't listen on {host} port {port}", "name another --port or --host"):
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            probe.bind(address)


def _command(settings: ServerSettings, artifacts: str) -> list[str]:
    server = server_command(settings.host, settings.port, workers=settings.workers, passwords=settings.auth)
    server += ["--serve-artifacts", "--artifacts-destination", artifacts]
    server += ["--allowed-hosts", ",".join(allowed_hosts(settings))]
    origins = allowed_origins(settings)
    return [*server, "--cors-allowed-origins", ",".join(origins)] if origins else server


def _environment(settings: ServerSettings, backend: str) -> dict[str, str]:
    """Environment of the server; it holds the backend's password, which a command line would show to everyone."""
    values = server_environment(backend)
    if settings.auth:
        values["MLFLOW_AUTH_CONFIG_PATH"] = str(auth_config(settings.folder))
        values.setdefault("MLFLOW_FLASK_SERVER_SECRET_KEY", secret_key(settings.folder))
    return values
