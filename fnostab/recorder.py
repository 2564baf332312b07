"""``from fnostab.recorder import Recorder``: see `fnostab.record.recorder`."""

from fnostab.record.recorder import Recorder

__all__ = ["Recorder"]
