"""Train one trial as `fnostab train --trial` does, and measure the CPU time of its parts.

    python -m benchmarks.trial_parts TRIAL.json PARTS.json

The time of a part excludes that of nested parts.
"""

import functools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fnostab.startup import imports_that_stay

SECONDS: dict[str, float] = defaultdict(float)
_open: list[str] = []
_since = 0.0


def _switch(part: str | None) -> None:
    """Add the elapsed time to the innermost open part; then open ``part``, or with None close the innermost."""
    global _since
    now = time.process_time()
    if _open:
        SECONDS[_open[-1]] += now - _since
    _since = now
    _open.append(part) if part else _open.pop()


@contextmanager
def booked(part: str) -> Iterator[None]:
    _switch(part)
    try:
        yield
    finally:
        _switch(None)


def book(owner: Any, name: str, part: str) -> None:
    """Wrap a function so that its time is added to a part."""
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def timed(*arguments: Any, **named: Any) -> Any:
        with booked(part):
            return function(*arguments, **named)

    setattr(owner, name, timed)


def main() -> None:
    trial, answer = map(Path, sys.argv[1:])
    with imports_that_stay():
        with booked("import of torch"):
            import torch
        with booked("import of lightning"):
            import lightning  # noqa: F401
        with booked("import of the rest"):
            from fnostab.ptychography.training import trial as whole
            from fnostab.record.trial import TrialSpec
    book_parts(torch, whole)
    with booked("setting up, and the rest"):
        whole.run_trial(TrialSpec.read(trial), trial.parent)
    answer.write_text(json.dumps(SECONDS))


def book_parts(torch: Any, whole: Any) -> None:
    from lightning.pytorch.loops import _EvaluationLoop, _FitLoop, _TrainingEpochLoop

    from fnostab import monitor as callbacks
    from fnostab.ptychography.training import module, setup
    from fnostab.record.journal import Journal

    book(setup, "prepare", "data set")
    book(setup.PtychoModule, "constant_loss", "constant loss")
    book(_FitLoop, "run", "Lightning")
    book(_TrainingEpochLoop, "advance", "Lightning, a step")
    book(setup.PtychoModule, "training_step", "steps: forward")
    book(torch.Tensor, "backward", "steps: backward")
    book(setup.PtychoModule, "configure_gradient_clipping", "steps: clipping")
    book(sys.modules["torch.optim.adam"], "adam", "steps: optimiser")  # torch.optim hides the module
    for callback in (callbacks.StabilityMonitor, callbacks.BlackBox, callbacks.Snapshots, whole.BestCheckpoint):
        for hook in [name for name in vars(callback) if name.startswith("on_")]:
            book(callback, hook, f"{callback.__name__}")
    book(_EvaluationLoop, "run", "Lightning, a validation")
    book(setup.PtychoModule, "validation_step", "validation: forward")
    book(module, "reconstruct", "validation: stitching")
    for name in ("evaluate", "field_spread", "detail_correlation", "patch_variation"):
        book(module, name, "validation: SSIM and spread")
    book(Journal, "record", "journal")
    book(Journal, "event", "journal")
    book(whole, "predict", "test object")
    book(whole, "reconstruct", "test object")
    book(whole, "score", "test object")
    book(whole, "draw_reconstructions", "figures")
    book(whole, "describe_environment", "environment")
    book(whole, "git_state", "environment")


if __name__ == "__main__":
    main()
