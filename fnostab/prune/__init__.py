"""Shrink old trials: the store keeps thinned curves with every spike, an archive on disk keeps all points."""

from fnostab.prune.journals import Archived, archive_journals, old_journals
from fnostab.prune.points import KEPT_AT_MOST, Thinning, plan_thinning, shape_of

__all__ = ["KEPT_AT_MOST", "Archived", "Thinning", "archive_journals", "old_journals", "plan_thinning", "shape_of"]
