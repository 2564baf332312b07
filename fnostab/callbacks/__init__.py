"""What watches a training: Lightning callbacks that write to any sink."""

from fnostab.callbacks.block_statistics import BlockStatistics
from fnostab.callbacks.resources import ResourceSampler
from fnostab.callbacks.stability import StabilityMonitor

__all__ = ["BlockStatistics", "ResourceSampler", "StabilityMonitor"]
