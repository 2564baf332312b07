"""Where a monitor records if it is told nothing: the trial of a study that runs this script."""

import os

from fnostab.record.journal import Sink

__all__ = ["JOURNAL_VARIABLE", "session_sink"]

JOURNAL_VARIABLE = "FNOSTAB_JOURNAL"


def session_sink() -> Sink | None:
    """The journal of the trial that this process was started for; None outside a study."""
    if JOURNAL_VARIABLE not in os.environ:
        return None
    from fnostab.record import recorder

    sink: Sink | None = recorder.session_sink()
    return sink
