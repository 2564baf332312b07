"""What watches a training: Lightning callbacks that write to any sink."""

from fnostab.callbacks.black_box import BlackBox
from fnostab.callbacks.block_statistics import BlockStatistics
from fnostab.callbacks.resources import ResourceSampler
from fnostab.callbacks.snapshots import Snapshots
from fnostab.callbacks.stability import StabilityMonitor
from fnostab.callbacks.state import StateFiles

__all__ = ["BlackBox", "BlockStatistics", "ResourceSampler", "Snapshots", "StabilityMonitor", "StateFiles"]
