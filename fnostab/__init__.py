"""Test whether a change makes training stable: arms over many seeds, recorded in MLflow, and an answer for each arm.

The names below are imported when they are first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULE_OF = {
    "Answer": "decision",
    "AnswerName": "decision",
    "ArmSummary": "decision",
    "Case": "report.case",
    "Criterion": "decision",
    "FnostabError": "errors",
    "NextStep": "decision",
    "Outcome": "record.outcomes",
    "Recorder": "recorder",
    "Rules": "decision",
    "StabilityMonitor": "monitor",
    "Stage": "decision",
    "Study": "asking",
    "StudyRun": "launch.run",
    "Table": "record.table",
    "TableStudy": "record.table_study",
    "TrialRow": "record.table",
    "Verdict": "decision",
    "VerdictName": "decision",
    "decide": "report.decide_table",
    "live_sink": "tracking",
    "load_study": "study.study",
    "read_table": "record.table_file",
    "run_study": "launch.run",
    "write_table": "record.table_file",
}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
