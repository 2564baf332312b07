"""Checks of `fnostab doctor`: can this installation, this machine and these records do a study's work?

Each check is a function that says what it found in one line, with the command that mends it. None may hang: a
driver, a disk of another machine or a server that does not answer is what doctors are called for.
"""

from fnostab.doctor.finding import Check, Finding, State, look
from fnostab.doctor.installation import installation_checks
from fnostab.doctor.machine import machine_checks
from fnostab.doctor.records import records_checks

__all__ = ["Check", "Finding", "State", "installation_checks", "look", "machine_checks", "records_checks"]
