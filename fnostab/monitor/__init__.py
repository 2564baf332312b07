"""Watch a training: Lightning callbacks that write to any sink."""

from fnostab.monitor.black_box import BlackBox
from fnostab.monitor.block_statistics import BlockStatistics
from fnostab.monitor.resources import ResourceSampler
from fnostab.monitor.snapshots import Snapshots
from fnostab.monitor.stability import StabilityMonitor
from fnostab.monitor.state import StateFiles

__all__ = ["BlackBox", "BlockStatistics", "ResourceSampler", "Snapshots", "StabilityMonitor", "StateFiles"]
