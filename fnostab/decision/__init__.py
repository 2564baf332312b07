"""Compare arms: turn the trials of one or two stages into an answer for every arm, and a verdict.

Pure Python: no torch, no MLflow. Each arm is compared with control within its stage by a few named criteria on the
observed numbers, and each criterion states whether its statistical test supports it. docs/verdict.md explains the
rules.
"""

from fnostab.decision.answers import Answer, AnswerName, Because
from fnostab.decision.chances import MoreSeeds
from fnostab.decision.conclusion import VerdictName
from fnostab.decision.criteria import Criterion, State
from fnostab.decision.follow_up import FollowUp, follow_up
from fnostab.decision.next_step import NextKind, NextStep
from fnostab.decision.rules import Roles, Rules
from fnostab.decision.stress import Stress, compare_stress
from fnostab.decision.tally import ArmSummary, Stage
from fnostab.decision.verdict import Verdict, decide

__all__ = [
    "Answer",
    "AnswerName",
    "ArmSummary",
    "Because",
    "Criterion",
    "FollowUp",
    "MoreSeeds",
    "NextKind",
    "NextStep",
    "Roles",
    "Rules",
    "Stage",
    "State",
    "Stress",
    "Verdict",
    "VerdictName",
    "compare_stress",
    "decide",
    "follow_up",
]
