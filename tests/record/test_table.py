"""A row of a table that is made in Python."""

import math

import numpy as np
import pytest

from fnostab.errors import DecisionError
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow


def test_a_converged_row_made_in_python_needs_a_finite_loss():
    with pytest.raises(
        DecisionError, match=r"^arm x, seed 2: expected a finite loss of a converged trial, at most 1e\+300"
    ):
        TrialRow("x", 2, Outcome.CONVERGED, loss=math.nan)
    with pytest.raises(DecisionError, match=r"^arm x, seed 2: loss: expected a number, got '0\.1' \(str\)$"):
        TrialRow("x", 2, Outcome.CONVERGED, loss="0.1")
    with pytest.raises(DecisionError, match=r"^arm x, seed 2: ssim: expected a number, got \[\] \(list\)$"):
        TrialRow("x", 2, Outcome.CONVERGED, loss=0.1, measures={"ssim": []})
    row = TrialRow("x", 2, Outcome.CONVERGED, loss=np.float32(0.5), measures={"ssim": np.array(0.25)})
    assert (type(row.loss), row.loss, row.measures) == (float, 0.5, {"ssim": 0.25})
