"""Settings of MLflow are fnostab's own while it works, and the user's before and after."""

import subprocess
import sys

SCRIPT = """
import logging, os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from fnostab.tracking.environment import given, settled

os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "5"
names = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_DISABLE_TELEMETRY")
def state(environment):
    level = logging.getLevelName(logging.getLogger("urllib3.connectionpool").level)
    return [environment.get(name) for name in names] + [level]

print(state(os.environ))
with settled():
    print(state(os.environ))
    print(state(given()))
    with settled():
        pass
    print(state(os.environ))
print(state(os.environ))
together = Barrier(4)
def call(_):
    with settled():
        together.wait(60)
    together.wait(60)
with ThreadPoolExecutor(4) as pool:  # calls that overlap
    list(pool.map(call, range(4)))
print(state(os.environ))
"""


def test_what_the_user_has_set_stays_and_the_rest_is_as_before_afterwards(environment):
    answer = subprocess.run([sys.executable, "-c", SCRIPT], env=_bare(environment), capture_output=True, text=True)
    assert answer.stdout.splitlines() == [
        "['5', None, None, 'NOTSET']",
        "['5', '20', 'true', 'ERROR']",
        "['5', None, 'true', 'ERROR']",
        "['5', '20', 'true', 'ERROR']",
        "['5', None, None, 'NOTSET']",
        "['5', None, None, 'NOTSET']",
    ], answer.stderr


def _bare(environment):
    return {name: value for name, value in environment.items() if not name.startswith("MLFLOW_")}
