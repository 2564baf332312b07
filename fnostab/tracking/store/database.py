"""Check that a tracking database is usable, before MLflow retries for a hundred seconds.

MLflow 3.17 also upgrades the schema of an older database without asking, if that lacks a table. Users who share a
database want to be asked, and to make a copy first.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import sqlalchemy
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from fnostab.errors import TrackingError
from fnostab.tracking.store.errors import describe, masked

TIMEOUT_S = 4
LOCKED_S = 30  # a process that writes holds its lock for less time
MAKING_S = 180  # MLflow creates its tables in 5 to 60 s, depending on the machine's load
STALLED_S = 30  # no process is creating a database whose schema has not changed for this long
SETTLED_S = 1  # the first experiment is written after the last table
LOOK_S = 0.2
_log = logging.getLogger(__name__)
EMPTY = "empty"
FILE = "fnostab.file"  # key of the file that a connection has opened
VERSIONS = "alembic_version"  # table with the version of MLflow's schema


def usable_sqlite(uri: str) -> str:
    """Check that SQLite can write to ``uri``, and return it with an absolute path.

    MLflow itself would create missing directories, and retry a broken path for 100 s.

    Raises:
        TrackingError: SQLite can't write there.
    """
    path = sqlite_file(uri)
    if path is None:
        raise TrackingError(f"tracking database {uri} is in memory: name a file, as in sqlite:///mlflow.db")
    if not path.parent.is_dir():
        raise TrackingError(f"tracking database {path}: no directory {path.parent}; make it, or name another")
    try:
        with closing(sqlite3.connect(path, timeout=LOCKED_S)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # fails if the file can't be written, and changes nothing
            connection.rollback()
    except sqlite3.Error as error:
        raise TrackingError(f"tracking database {path}: {error}; fix it, or name another file") from error
    _, question_mark, query = uri.partition("?")
    written = str(path).replace("%", "%25").replace("?", "%3F")
    # MLflow creates the parent folder of the path after "sqlite:///", without decoding it
    scheme = "sqlite" if written == str(path) else "sqlite+pysqlite"
    usable = f"{scheme}:///{written}{question_mark}{query}"
    if sqlite_file(usable) != path:
        raise TrackingError(
            f"tracking database {path}: SQLAlchemy {sqlalchemy.__version__} can't open a path with % or ?: "
            "`pip install --upgrade sqlalchemy` (2.1 can), or name another folder"
        )
    return usable


def sqlite_file(uri: str) -> Path | None:
    """Absolute path of the file of a SQLite address; None for a database in memory, or another kind of address.

    Raises:
        TrackingError: the address is not valid.
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
    """Connect once, and check that the database is empty or has the schema of this MLflow.

    If another process is creating the tables, wait for it.

    Raises:
        TrackingError: there is no driver, the database does not answer, or another version of MLflow created it.
    """
    from mlflow.store.db.utils import _get_latest_schema_revision  # here, since users of a server don't need it

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
    """Version of a database's schema, after waiting for another process that creates its tables."""
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
    """Version of a database's schema, and whether it holds an experiment, which MLflow creates after all tables."""
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
    """Let one process at a time open an empty SQLite database, and create MLflow's tables in it.

    Raises:
        TrackingError: another process has been creating them for `MAKING_S`, or they can't be created.
    """
    path = sqlite_file(uri)
    if path is None:
        yield
        return
    lock = path.with_name(f"{path.name}.making.lock")
    if _schema(uri)[0] != EMPTY:
        with suppress(OSError):  # its folder may be read-only
            lock.unlink()  # left by a process that was killed after creating the tables
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
    """Create MLflow's tables in a file beside the database, which then replaces it.

    So a process that is killed leaves no incomplete schema.
    """
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    aside = path.with_name(f"{path.name}.making")
    for left in (aside, aside.with_name(f"{aside.name}-journal")):  # by a process that was killed
        left.unlink(missing_ok=True)
    name, mark, query = uri.partition("?")
    try:
        SqlAlchemyStore(f"{name}.making{mark}{query}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
        aside.replace(path)
    except (OSError, MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
        raise TrackingError(describe(error, uri)) from error


def notice_another_file(engine: sqlalchemy.Engine) -> None:
    """Reconnect when a SQLite file was replaced by another, for example by a backup.

    A connection that stays open would read the old file, and could not write.
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
    """Device and inode of a file; None if there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def check_writable(uri: str) -> None:
    """Check that a database can be written, with a change that is rolled back.

    Raises:
        TrackingError: it is read-only, or this user may not write there.
    """
    with connected(uri) as connection:
        if sqlalchemy.inspect(connection).has_table(VERSIONS):
            connection.execute(sqlalchemy.text(f"UPDATE {VERSIONS} SET version_num = version_num"))
        elif connection.dialect.name == "postgresql":  # others can't roll this back
            connection.execute(sqlalchemy.text("CREATE TABLE fnostab_probe (x integer)"))
        connection.rollback()


@contextmanager
def connected(uri: str) -> Iterator[sqlalchemy.Connection]:
    """Open a connection to a database, without retries.

    Raises:
        TrackingError: there is no driver, the address is not valid, or the database does not answer or refuses a
            statement.
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
    except ValueError:  # its message, as about an invalid port, may quote a part of the password
        raise TrackingError(
            f"tracking database {masked(uri)} is not a valid address: write special characters of a password as %40 "
            "for @, %2F for / and %3A for a colon"
        ) from None


def _is_known(revision: str) -> bool:
    """Whether a schema version is one that this MLflow can upgrade."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    known = ScriptDirectory.from_config(_get_alembic_config("")).walk_revisions()
    return any(each.revision == revision for each in known)
