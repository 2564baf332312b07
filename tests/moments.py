"""Stop or hold the process of a trial at one of its steps, however fast the machine is."""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent
SITE = """
import os, threading, time
from fnostab.record.journal import Journal

record, once = Journal.record, threading.Lock()

def then(self, step, values):
    record(self, step, values)
    if step >= {step}:
        {what}

Journal.record = then
"""


def signal_at(step, number, folder):
    """Variables of a process that sends itself a signal once it has recorded a step; ``folder`` is for a file."""
    return _site(folder, step, f"if once.acquire(blocking=False): os.kill(os.getpid(), {number:d})")


def wait_at(step, go, folder, trials=""):
    """Variables of a process that, once it has recorded a step of one of the trials, waits for a file ``go``."""
    named = f"({trials!r} or self.directory.name).split()"
    waits = f"self.directory.name in {named} and not os.path.exists({str(go)!r})"
    return _site(folder, step, f"while {waits}: time.sleep(0.02)")


def _site(folder, step, what):
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(SITE.format(step=step, what=what))
    return {"PYTHONPATH": os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", str(ROOT))])}
