"""A stand-in for a trial's process, without torch: the same journal, stderr and ways to end.

Called as ``stub_trial.py --trial FILE``, or with ``--fork-server``, to fork for each trial as `fnostab train` does.
What to do is in the file that STUB_SCRIPT names, one entry for each attempt: an outcome, "exit N", "signal N",
"announce N" (a failure, then the end by signal N), "spoilt METRIC" (NaN in it, then SIGKILL), "silent N", "hang" until
SIGTERM, "deaf" to it, "held" (converge once there is a file STUB_SCRIPT.go), "gorge N" (take N megabytes, and hang), or
"quit" as if SIGTERM had come. STUB_SCRIPT.log gets a line for each start and end. With STUB_IMPORTS, a process that
forks imports what it is told to, for calls.
"""

import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

from fnostab.launch.forking import become_a_trial
from fnostab.record import names
from fnostab.record.journal import Journal

STEPS = 5


def main(trial: Path) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until there is a journal that says so
    directory, name = trial.parent, trial.parent.name
    script = Path(os.environ["STUB_SCRIPT"])
    log(script, f"start {name}")
    earlier = directory / "attempts"
    n_earlier = len(earlier.read_text()) if earlier.exists() else 0
    earlier.write_text("x" * (n_earlier + 1))
    what, _, number = json.loads(script.read_text()).get(name, ["converged"])[n_earlier].partition(" ")
    if what == "silent":
        os._exit(int(number))
    if what == "exit":
        print("Traceback: the driver of the disk\nRuntimeError: the disk melted\n", file=sys.stderr, flush=True)
        os._exit(int(number))

    def end(signum, frame):
        outcome(journal, "killed", "asked to end", requested=True)
        log(script, f"end {name}")
        os._exit(1)

    with Journal(directory) as journal:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if what == "deaf" else end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        journal.event(names.PARAMS_EVENT, {"arm": name.rpartition("-")[0]})
        journal.event(names.TAGS_EVENT, {names.OWNER: f"{os.getpid()}@{os.uname().nodename}"})
        if what == "quit":
            end(None, None)
        journal.event(names.STARTED_EVENT, {"scheduled_steps": STEPS})
        for step in range(STEPS):
            journal.record(step, {names.TRAIN_LOSS: 1 / (step + 1), names.GRAD_NORM: float(step)})
        while what == "held" and not script.with_suffix(".go").exists():
            time.sleep(0.02)
        what = "converged" if what == "held" else what
        taken = bytearray(b"x") * (int(number) * 2**20) if what == "gorge" else b""
        while what in ("hang", "deaf") or taken:
            time.sleep(0.02)
        if what == "announce":
            journal.event(names.TAGS_EVENT, {names.OUTCOME: "nonfinite", names.FAILURE_STEP: "3"})
        if what == "spoilt":
            journal.record(STEPS, {number: float("nan")})
            number = signal.SIGKILL
        if what in ("signal", "announce", "spoilt"):
            os.kill(os.getpid(), int(number))
        outcome(journal, what)
    log(script, f"end {name}")
    return 0 if what == "converged" else 1


def outcome(journal, what, reason=None, **more):
    empty = {"failure_step": None, "known_good_step": None, "rules_held": [], "not_judged": []}
    journal.event(names.OUTCOME_EVENT, {"outcome": what, "reason": reason, **empty, **more})


def log(script, line):
    with open(script.with_suffix(".log"), "a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    if "--fork-server" in sys.argv:
        for module in sys.argv[-1].split(",") if os.environ.get("STUB_IMPORTS") else ():
            import_module(module)
        sys.exit(main(become_a_trial()[0]))
    sys.exit(main(Path(sys.argv[-1])))
