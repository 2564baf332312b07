"""Shrink old trials: a thinned curve with every spike stays in the store, all points in an archive on disk."""

from fnostab.prune.journals import Archived, archive_journals, old_journals
from fnostab.prune.points import KEPT_AT_MOST, Thinning, plan_thinning, shape_of

__all__ = [
    "KEPT_AT_MOST",
    "Archived",
    "Thinning",
    "archive_journals",
    "old_journals",
    "plan_thinning",
    "shape_of",
]
