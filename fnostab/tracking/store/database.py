"""Check that a database of MLflow's records is usable, before MLflow tries for a hundred seconds.

MLflow 3.17 also changes the schema of an older database without being asked, if that lacks a table. Who shares
a database wants to be asked, and to take a copy first.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mlflow
import sqlalchemy
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from fnostab.errors import TrackingError
from fnostab.tracking.store.errors import describe, masked

__all__ = [
    "TIMEOUT_S",
    "check_database",
    "check_writable",
    "connected",
    "made_by_one",
    "notice_another_file",
    "sqlite_file",
    "usable_sqlite",
]

TIMEOUT_S = 4
LOCKED_S = 30  # another process that writes lets go of a database sooner
MAKING_S = 180  # MLflow makes its tables in 5 to 60 s, by how busy the machine is
STALLED_S = 30  # a database that did not change for so long is not being made
SETTLED_S = 1  # the first experiment comes after the last table
LOOK_S = 0.2
_log = logging.getLogger(__name__)
EMPTY = "empty"
FILE = "fnostab.file"  # what a connection is to
VERSIONS = "alembic_version"  # the table in which MLflow keeps the version of its schema


def usable_sqlite(uri: str) -> str:
    """``uri`` with an absolute path, once it is known that SQLite can write there.

    MLflow itself would make missing directories and try a broken path for 100 s.

    Raises:
        TrackingError: it can't.
    """
    path = sqlite_file(uri)
    if path is None:
        raise TrackingError(f"tracking database {uri} is in memory: name a file, as in sqlite:///mlflow.db")
    if not path.parent.is_dir():
        raise TrackingError(f"tracking database {path}: no directory {path.parent}; make it, or name another")
    try:
        with closing(sqlite3.connect(path, timeout=LOCKED_S)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # fails where writing would, and changes nothing
            connection.rollback()
    except sqlite3.Error as error:
        raise TrackingError(f"tracking database {path}: {error}; fix it, or name another file") from error
    _, question_mark, query = uri.partition("?")
    written = str(path).replace("%", "%25").replace("?", "%3F")
    # MLflow makes the parent of what follows "sqlite:///", as it is written
    scheme = "sqlite" if written == str(path) else "sqlite+pysqlite"
    usable = f"{scheme}:///{written}{question_mark}{query}"
    if sqlite_file(usable) != path:
        raise TrackingError(
            f"tracking database {path}: SQLAlchemy {sqlalchemy.__version__} can't open a path with % or ?: "
            "`pip install --upgrade sqlalchemy` (2.1 can), or name another folder"
        )
    return usable


def sqlite_file(uri: str) -> Path | None:
    """Absolute path of the file that a SQLite address names; None if it names none, or is of another kind.

    Raises:
        TrackingError: it is no address.
    """
    if not uri.startswith("sqlite") or "://" not in uri:
        return None
    try:
        name = sqlalchemy.make_url(uri).database
    except (ValueError, sqlalchemy.exc.ArgumentError) as error:
        raise TrackingError(
            f"tracking database {masked(uri)}: {error}; a path follows three slashes, as in sqlite:///mlflow.db"
        ) from error
    return None if name in (None, "", ":memory:") else Path(name).absolute()


def check_database(uri: str) -> None:
    """Try once to connect, and see that this MLflow knows the schema of what is there.

    Raises:
        TrackingError: there is no driver, it does not answer, or another version of MLflow made it.
            One that another process is making is waited for.
    """
    from mlflow.store.db.utils import _get_latest_schema_revision  # here, since who uses a server needs none of it

    wanted = _get_latest_schema_revision()
    found = _await_tables(uri, wanted)
    if found in (None, EMPTY, wanted):
        return
    what = f"tracking database {masked(uri)} has the schema {found}, this MLflow {mlflow.__version__} uses {wanted}: "
    if _is_known(found):
        raise TrackingError(
            f"{what}it is older; stop what uses it, back it up, and run `mlflow db upgrade {masked(uri)}`"
        )
    raise TrackingError(f"{what}a newer MLflow made it; `pip install --upgrade mlflow` here, as on its server")


def _await_tables(uri: str, wanted: str) -> str | None:
    """Version of a database's schema, once no process is making its tables any more."""
    found, is_made = _schema(uri)
    if is_made or found in (EMPTY, wanted):
        return found
    _log.warning("waiting for another process that creates the tables of %s", masked(uri))
    deadline = time.monotonic() + STALLED_S
    while not is_made and found != wanted:
        if time.monotonic() > deadline:
            raise TrackingError(
                f"tracking database {masked(uri)} is incomplete: if no process is creating it any more, delete it, "
                "or name another"
            )
        time.sleep(LOOK_S)
        before, (found, is_made) = found, _schema(uri)
        if found != before:
            deadline = time.monotonic() + STALLED_S
    time.sleep(SETTLED_S)
    return found


def _schema(uri: str) -> tuple[str | None, bool]:
    """Version of a database's schema, and whether it holds an experiment: MLflow makes its first one last."""
    with connected(uri) as connection:
        tables = sqlalchemy.inspect(connection)
        has_version, has_experiments = tables.has_table(VERSIONS), tables.has_table("experiments")
        if not has_version and not has_experiments:
            return EMPTY, False
        version = sqlalchemy.text(f"SELECT version_num FROM {VERSIONS}")
        any_experiment = sqlalchemy.text("SELECT 1 FROM experiments")
        found = connection.scalar(version) if has_version else None
        return found, has_experiments and connection.scalar(any_experiment) is not None


@contextmanager
def made_by_one(uri: str) -> Iterator[None]:
    """Let one process at a time open an empty SQLite database: MLflow then makes its tables.

    Raises:
        TrackingError: another process has been at it for minutes, or the tables can't be made.
    """
    path = sqlite_file(uri)
    if path is None:
        yield
        return
    lock = path.with_name(f"{path.name}.making.lock")
    if _schema(uri)[0] != EMPTY:
        lock.unlink(missing_ok=True)  # of a process that was killed once the tables were there
        yield
        return
    try:
        with FileLock(lock, timeout=MAKING_S):
            if _schema(uri)[0] == EMPTY:
                _make_aside(uri, path)
            yield
            lock.unlink(missing_ok=True)
    except Timeout:
        raise TrackingError(f"another process has been creating {path} for {MAKING_S} s: wait, or end it") from None


def _make_aside(uri: str, path: Path) -> None:
    """Let MLflow make its tables in a file beside the database, which then takes its place.

    A process that is killed meanwhile leaves no half of a schema.
    """
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    aside = path.with_name(f"{path.name}.making")
    for left in (aside, aside.with_name(f"{aside.name}-journal")):  # of a process that was killed
        left.unlink(missing_ok=True)
    name, mark, query = uri.partition("?")
    try:
        SqlAlchemyStore(f"{name}.making{mark}{query}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
        aside.replace(path)
    except (OSError, MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
        raise TrackingError(describe(error, uri)) from error


def notice_another_file(engine: sqlalchemy.Engine) -> None:
    """Let connections to a SQLite file that was replaced by another, as by a backup, be made again.

    A connection that stays open would read the file as it was, and could not write.
    """
    path = sqlite_file(engine.url.render_as_string(hide_password=False))
    if path is None or sqlalchemy.event.contains(engine, "checkout", _insist_on_file):
        return

    def remember(_connection: object, record: Any) -> None:
        record.info[FILE] = path, _identity(path)

    sqlalchemy.event.listen(engine, "connect", remember)
    sqlalchemy.event.listen(engine, "checkout", _insist_on_file)
    engine.dispose()


def _insist_on_file(_connection: object, record: Any, _proxy: object) -> None:
    path, before = record.info[FILE]
    if (now := _identity(path)) is not None and now != before:
        raise sqlalchemy.exc.DisconnectionError(f"{path} is another file")  # SQLAlchemy then connects again


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file; None if there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def check_writable(uri: str) -> None:
    """Write to a database, and take it back.

    Raises:
        TrackingError: it is read-only, or this user may not write there.
    """
    with connected(uri) as connection:
        if sqlalchemy.inspect(connection).has_table(VERSIONS):
            connection.execute(sqlalchemy.text(f"UPDATE {VERSIONS} SET version_num = version_num"))
        elif connection.dialect.name == "postgresql":  # others could not take it back
            connection.execute(sqlalchemy.text("CREATE TABLE fnostab_probe (x integer)"))
        connection.rollback()


@contextmanager
def connected(uri: str) -> Iterator[sqlalchemy.Connection]:
    """A connection to a database, tried for once.

    Raises:
        TrackingError: there is no driver, the address is none, or it does not answer or refuses what is asked.
    """
    engine = _engine(uri)
    try:
        with engine.connect() as connection:
            yield connection
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise TrackingError(describe(error, uri)) from error
    finally:
        engine.dispose()


def _engine(uri: str) -> sqlalchemy.Engine:
    limit = "timeout" if uri.startswith("sqlite") else "connect_timeout"
    try:
        return sqlalchemy.create_engine(uri, connect_args={limit: TIMEOUT_S})
    except ImportError as error:
        raise TrackingError(
            f"tracking database {masked(uri)} needs the driver {error.name or 'psycopg'!r}: "
            "for PostgreSQL `pip install 'fnostab[postgresql]'`, for MySQL name one, as in mysql+pymysql://"
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise TrackingError(describe(error, uri)) from error
    except ValueError:  # its text, as that of a port that is no number, may be a part of the password
        raise TrackingError(
            f"tracking database {masked(uri)} is not a valid address: write special characters of a password as %40 "
            "for @, %2F for / and %3A for a colon"
        ) from None


def _is_known(revision: str) -> bool:
    """Whether this MLflow has made such a schema on its way to the present one."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    known = ScriptDirectory.from_config(_get_alembic_config("")).walk_revisions()
    return any(each.revision == revision for each in known)
