"""Describe errors of a tracking store in one line, without passwords and with what to do next."""

import errno
import re

import requests
import sqlalchemy
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException, RestException

from fnostab.errors import SlowStoreError, TrackingError

LONGEST_MESSAGE = 240
_PASSWORD = re.compile(r"((?:^(?!\S*//)|//)[^/@\s:]*):\S*@")  # to the last @: a password may hold one, or a slash
_TOKEN = re.compile(r"(https?://)[^/@\s:]+@")
_PARAMETER = re.compile(r"([?&][^=&\s]*(?:pass|pwd|secret|token)[^=&\s]*=)[^&\s]+", re.IGNORECASE)
_CAUSE = re.compile(r"Caused by (\w+)")
_NO_TLS = re.compile(r"Caused by SSLError\(.*\[SSL[^\]]*\] (.*?)(?: \(_ssl|'|$)")
_SLOW = re.compile(r"ReadTimeout|Read timed out|read timeout=")  # a failed connection has other words
_AUTOFLUSH = re.compile(r"\(raised as a result of [^)]*\)\s*")  # SQLAlchemy's prefix to the database's message
_GIVES_UP = re.compile(r"too many (5\d\d|429) error responses")
_NEXT_STEPS = {  # words in messages of PostgreSQL, SQLite and their drivers -> what to do next
    "password authentication failed": "correct the user or the password in its address",
    "no pg_hba.conf entry": "let its administrator admit this machine in pg_hba.conf",
    "does not exist": "make it with PostgreSQL's createdb or createuser, or correct the name",
    "onnection refused": "start it, or correct host and port",
    "failed to resolve host": "correct the host's name",
    "timeout expired": "check that it runs and that no firewall blocks it",
    "too many clients": "raise its max_connections, or start the server with fewer --workers",
    "remaining connection slots": "raise its max_connections, or start the server with fewer --workers",
    "read-only": "name the database that is written, not a copy of it, or make it writable",
    "readonly": "make it writable, or name another one",
    "permission denied": "let its owner GRANT this user what is missing; the owner of the database lacks nothing",
    "mlflow-artifacts URI": "a server keeps its artifacts: name that server instead of its database",
    "database is locked": "another process is writing to it: try again when it ends; after Ctrl-Z, resume it with `fg`",
    "disk I/O error": "check that its disk is mounted, its quota, and `ulimit -f`",
    "No space left": "free some space where it is kept",
    "disk is full": "free some space where it is kept",
    "DiskFull": "free some space where it is kept",
}


def is_refusal(error: Exception) -> bool:
    """Whether an error concerns one run alone: the store refuses it, or can't take one of its files or records."""
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code()) // 100 == 4 and not is_away(error)
    return not is_away(error)


def is_away(error: Exception) -> bool:
    """Whether an error concerns every run: the store does not answer, refuses this user, or can't write."""
    if is_slow(error):
        return True
    if isinstance(error, MlflowException):
        gave_up = _GIVES_UP.search(str(error))
        status = int(gave_up[1]) if gave_up else error.get_http_status_code()
        return status in (401, 408, 429, 502, 503, 504)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    network = requests.RequestException, ConnectionError, TimeoutError
    return isinstance(error, (*network, sqlalchemy.exc.OperationalError))


def is_slow(error: Exception) -> bool:
    """Whether a server accepted the request but did not answer in time."""
    return isinstance(error, MlflowException | requests.RequestException) and bool(_SLOW.search(str(error)))


def tracking_error(error: Exception, uri: str) -> TrackingError:
    """Convert an error of the store at ``uri`` to a TrackingError, or to a SlowStoreError if `is_slow`."""
    return (SlowStoreError if is_slow(error) else TrackingError)(describe(error, uri))


def describe(error: Exception, uri: str) -> str:
    """Describe an error of the store at ``uri`` in one line, without its password."""
    address = masked(uri)
    text = _AUTOFLUSH.sub("", str(error))
    first_line = masked(next(iter(text.splitlines()), "") or type(error).__name__)[:LONGEST_MESSAGE]
    first_line += next((f"; {step}" for words, step in _NEXT_STEPS.items() if words in first_line), "")
    if not uri.startswith("http"):
        return f"tracking database {address}: {first_line}"
    if is_slow(error):
        limit = MLFLOW_HTTP_REQUEST_TIMEOUT.get()
        return (
            f"the MLflow server at {address} is running, but has not answered within {limit} s: it or its database is "
            f"busy; try again later, or wait longer with MLFLOW_HTTP_REQUEST_TIMEOUT={2 * limit}"
        )
    if status := _GIVES_UP.search(str(error)):
        return (
            f"the MLflow server at {address} answers, but failed to handle the request (HTTP {status[1]}): "
            "its database may be full, unreachable or overloaded; its log says why"
        )
    if isinstance(error, RestException) and error.get_http_status_code() != 401:
        return f"the MLflow server at {address} refuses: {first_line}"
    if "failed with exception" in str(error) or isinstance(error, requests.ConnectionError | requests.Timeout):
        if refused := _NO_TLS.search(str(error)):
            return f"no secure connection to {address}: {refused[1]}; {_certificate_or_scheme(refused[1])}"
        cause = _CAUSE.search(str(error))
        why = f" ({cause[1]})" if cause else ""
        return f"no tracking server answers at {address}{why}: start it, or set MLFLOW_TRACKING_URI to one that runs"
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        if status in (401, 403):
            return (
                f"the server at {address} refuses these credentials: "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        return f"what answers at {address} is not an MLflow server (HTTP {status}): check MLFLOW_TRACKING_URI"
    return f"tracking server {address}: {first_line}"


def _certificate_or_scheme(said: str) -> str:
    if "certificate" in said:
        return "set REQUESTS_CA_BUNDLE to the file of the authority that signed it, or of the certificate itself"
    return "if it does not use TLS, its address begins with http://"


def masked(text: str) -> str:
    """``text`` without the passwords and tokens of the URLs in it."""
    for secret, shown in ((_PASSWORD, r"\1:***@"), (_TOKEN, r"\1***@"), (_PARAMETER, r"\1***")):
        text = secret.sub(shown, text)
    return text
