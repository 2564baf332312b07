"""Passwords of a tracking server: MLflow's basic authentication, and files that only their owner may read."""

import contextlib
import importlib.util
import os
import secrets
import sqlite3
import warnings
from pathlib import Path

from mlflow.exceptions import MlflowException

from fnostab.errors import TrackingError, os_errors_as

SHORTEST_PASSWORD = 12  # MLflow's rule
ADMIN = "admin"  # unless another name is given
KNOWN_PASSWORD = "password1234"  # MLflow's former default


def administrator(folder: Path) -> str | None:
    """Name of an administrator of the server in ``folder``; None if it has none yet.

    Raises:
        TrackingError: its user database can't be read.
    """
    path = folder / "auth.db"
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(path)) as users:
            found = users.execute("SELECT username FROM users WHERE is_admin ORDER BY id").fetchone()
    except sqlite3.Error as error:
        if "no such table" in str(error):
            return None
        raise TrackingError(f"can't read the users in {path}: {error}; restore it from a copy") from error
    return None if found is None else str(found[0])


def create_admin(folder: Path, name: str, password: str) -> None:
    """Create the administrator ``name`` in this process, so that no other process sees the password.

    Raises:
        TrackingError: the extra is missing, the name or password is not accepted, or the folder can't be written.
    """
    check_extra()
    if len(password) < SHORTEST_PASSWORD or password == KNOWN_PASSWORD:
        raise TrackingError(
            f"the administrator's password is not accepted: take one of at least {SHORTEST_PASSWORD} characters "
            "that is not a published default"
        )
    path = private(folder, "auth.db")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of MLflow's server about its own libraries
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


def auth_config(folder: Path) -> Path:
    """Write the settings of MLflow's basic authentication; return the path of the file.

    Users may edit each other's experiments, but not delete them.
    """
    path = private(folder, "auth.ini")
    users = str(private(folder, "auth.db")).replace("%", "%%")
    path.write_text(
        "[mlflow]\n"
        "default_permission = EDIT\n"
        f"database_uri = sqlite:///{users}\n"
        f"admin_username = {(administrator(folder) or ADMIN).replace('%', '%%')}\n"  # else MLflow would create another
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    return path


def secret_key(folder: Path) -> str:
    """Key that signs web forms; it is created once, and is the same at every start."""
    path = private(folder, "secret.key")
    if not path.read_text().strip():
        path.write_text(secrets.token_hex(32) + "\n")
    return path.read_text().strip()


def private(folder: Path, name: str) -> Path:
    """Restrict a file to its owner, creating it if there is none; return its absolute path.

    Raises:
        TrackingError: the folder can't be written.
    """
    path = (folder / name).absolute()
    with os_errors_as(TrackingError, f"can't write {path}", "name another --folder"):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        path.chmod(0o600)
    return path
