"""Simulated and measured data sets: created once, cached on disk, and served to training in batches."""

from fnostab.ptychography.data.cache import dataset_digest, prepare
from fnostab.ptychography.data.grid_lines import GridLines, Split, simulate
from fnostab.ptychography.data.measured_scan import from_scan, pattern_counts, probe_of
from fnostab.ptychography.data.module import GridLinesData

__all__ = [
    "GridLines",
    "GridLinesData",
    "Split",
    "dataset_digest",
    "from_scan",
    "pattern_counts",
    "prepare",
    "probe_of",
    "simulate",
]
