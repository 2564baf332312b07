"""Where a monitor records if it is told nothing: the trial of a study that runs this script."""

import importlib
import os
from typing import Any

from fnostab.record.journal import Sink

__all__ = ["JOURNAL_VARIABLE", "session_sink"]

JOURNAL_VARIABLE = "FNOSTAB_JOURNAL"


def session_sink() -> Sink | None:
    """The journal of the trial that this process was started for; None outside a study."""
    if JOURNAL_VARIABLE not in os.environ:
        return None
    recorder: Any = importlib.import_module("fnostab.record.recorder")  # only inside a study
    sink: Sink | None = recorder.session_sink()
    return sink
