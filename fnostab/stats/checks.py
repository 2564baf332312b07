"""Argument checks shared by the modules of this package."""

from fnostab.errors import ConfigError, DecisionError


def check_counts(failed: int, n: int) -> None:
    """Raise DecisionError unless 0 <= failed <= n."""
    if not 0 <= failed <= n:
        raise DecisionError(f"{failed} failures of {n} trials: failures must lie between 0 and the number of trials")


def check_open_unit(name: str, value: float) -> None:
    """Raise ConfigError unless 0 < value < 1."""
    if not 0 < value < 1:
        raise ConfigError(f"{name} {value}: expected a number between 0 and 1, ends excluded")


def check_rate(name: str, value: float) -> None:
    """Raise ConfigError unless 0 <= value <= 1."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} {value}: expected a failure rate from 0 to 1")
