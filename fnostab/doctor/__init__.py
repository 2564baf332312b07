"""Checks of `fnostab doctor`: whether this installation, this machine and this tracking store can run a study.

Each check is a function that reports its finding in one line, with the command that fixes a problem. No check may
hang, even if a driver, a network disk or a server does not answer.
"""

from fnostab.doctor.finding import Check, Finding, State, look
from fnostab.doctor.installation import installation_checks
from fnostab.doctor.machine import machine_checks
from fnostab.doctor.records import records_checks

__all__ = ["Check", "Finding", "State", "installation_checks", "look", "machine_checks", "records_checks"]
