"""Data sets, simulated or of a measured scan: made once, kept on disk, handed to training batch by batch."""

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
