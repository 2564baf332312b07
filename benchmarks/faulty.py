"""A network and a command line in which one fault happens, once, at a chosen moment, for `benchmarks.faults`.

The network is `hybrid` in all but its ``options``: ``fault`` and ``moment``. As a program, ``python -m faulty
run ...`` is ``python -m fnostab run ...`` with one call to MLflow wrapped; FAULT and FAULT_MOMENT in the environment
say how. A marker file, which holds the time, sees to it that nothing is befallen twice.
"""

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULTS = {
    "sigterm": "SIGTERM",
    "sigint": "SIGINT",
    "exception": "exception",
    "oom": "out of memory",
    "exit": "os._exit",
    "sigkill": "SIGKILL",
    "disk": "full disk",
    "server": "server killed",
    "clock": "clock set back an hour",
    "files": "`ulimit -n 64`",
    "launchers": "two launchers",
}
MARKER = "fault.txt"
STEP = 200  # of a trial: in the midst of its third epoch
VALIDATION_AFTER = 150  # steps: its second
MOST_FILES = 64
SET_BACK_S = 3600


def strike(fault: str, marker: Path) -> None:
    """Let a fault happen to this process, its disk or its server; nothing if ``marker`` says that it has."""
    try:
        with open(marker, "x") as file:
            file.write(str(time.time()))
    except FileExistsError:
        return
    if fault == "exception":
        raise RuntimeError("a fault that was put in")
    if fault == "oom":
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    if fault == "exit":
        os._exit(3)
    elif fault == "disk":
        fill(Path(os.environ["FAULT_BALLAST"]))
    elif fault == "clock":
        set_clock_back()
    elif fault == "files":
        resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_FILES, MOST_FILES))
    elif fault == "server":
        os.killpg(int(Path(os.environ["FAULT_SERVER"]).read_text()), signal.SIGKILL)
    else:
        os.kill(os.getpid(), getattr(signal, fault.upper()))
        time.sleep(0.05)  # until Python has seen it


def fill(path: Path) -> None:
    """Fill a disk to its last byte."""
    with open(path, "ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def set_clock_back() -> None:
    """Set the clock of this process back; only root could set the machine's."""
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() - SET_BACK_S
    time.time_ns = lambda: nanoseconds() - SET_BACK_S * 10**9


def Network(config: Any) -> Any:  # noqa: N802 - a class to those who name it
    """`hybrid`, with what ``config.options`` asks for; faults happen only in the process of a trial."""
    from fnostab.ptychography.models import build_generator

    options = config.options
    network = build_generator(config.model_copy(update={"architecture": "hybrid", "options": {}}))
    if "fault" not in options or "--trial" not in sys.argv:
        return network
    marker = Path(sys.argv[sys.argv.index("--trial") + 1]).parent / MARKER
    if options["moment"] == "start":
        strike(options["fault"], marker)
    steps = 0

    def before_forward(module: Any, inputs: Any) -> None:
        nonlocal steps
        steps += module.training
        if options["moment"] == "mid-epoch":
            due = steps == STEP
        else:
            due = options["moment"] == "validation" and not module.training and steps > VALIDATION_AFTER
        if due:
            strike(options["fault"], marker)

    network.register_forward_pre_hook(before_forward)
    return network


def wrap(owner: type, name: str, due: Callable[..., bool], fault: str, marker: Path) -> None:
    """Let ``fault`` happen once in a call of a method: while it is answered, or else when the store took it."""
    method = getattr(owner, name)

    def wrapped(self: Any, *arguments: Any, **more: Any) -> Any:
        if not due(*arguments, **more) or marker.exists():
            return method(self, *arguments, **more)
        if fault == "server":
            threading.Timer(0.005, strike, (fault, marker)).start()
        elif fault == "disk":
            strike(fault, marker)
        elif fault == "answer":  # the server takes it and dies: the client asks again, as its library does
            method(self, *arguments, **more)
            strike("server", marker)
        answer = method(self, *arguments, **more)
        if fault not in ("server", "disk", "answer"):
            strike(fault, marker)
        return answer

    setattr(owner, name, wrapped)


def main() -> None:
    from mlflow import MlflowClient

    from fnostab.cli import main as fnostab

    fault, marker = os.environ["FAULT"], Path(os.environ["FAULT_MARKER"])
    batches = 0

    def second_batch(*arguments: Any, **more: Any) -> bool:
        nonlocal batches
        batches += bool(more.get("metrics"))
        return batches == 2

    def in_verdict(*arguments: Any, **more: Any) -> bool:
        return "verdict.md" in arguments

    if fault == "files":
        strike(fault, marker)
    elif fault == "answer":
        wrap(MlflowClient, "create_run", lambda *a, **m: True, fault, marker)
    elif os.environ["FAULT_MOMENT"] == "upload":
        wrap(MlflowClient, "log_batch", second_batch, fault, marker)
    else:
        wrap(MlflowClient, "log_text", in_verdict, fault, marker)
    fnostab(sys.argv[1:])


if __name__ == "__main__":
    main()
