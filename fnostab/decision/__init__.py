"""What compares arms: from the trials of one or two stages to a verdict.

Pure: no torch, no MLflow. Each arm is compared with control within its stage by a few named
criteria, on the observed numbers; beside each stands whether its statistical test supports it. What
the criteria say together is the verdict. docs/verdict.md has the rules in words.
"""

from fnostab.decision.criteria import Criterion, State
from fnostab.decision.follow_up import FollowUp, follow_up
from fnostab.decision.more_seeds import MoreSeeds
from fnostab.decision.robustness import Robustness, assess
from fnostab.decision.rules import Roles, Rules
from fnostab.decision.stress import Stress, compare_stress
from fnostab.decision.tally import ArmSummary, Stage
from fnostab.decision.verdict import Verdict, VerdictName, decide

__all__ = [
    "ArmSummary",
    "Criterion",
    "FollowUp",
    "MoreSeeds",
    "Robustness",
    "Roles",
    "Rules",
    "Stage",
    "State",
    "Stress",
    "Verdict",
    "VerdictName",
    "assess",
    "compare_stress",
    "decide",
    "follow_up",
]
