"""Ports of servers that tests start."""

import os

from fnostab.tracking import free_port

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def unused_port(base=5600):
    """A port on which nothing listens. Tests that run side by side look in ranges of their own."""
    return free_port(base + 100 * WORKER)
