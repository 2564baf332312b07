"""Trials in shorthand."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for decision_helpers: importlib mode leaves the path alone
