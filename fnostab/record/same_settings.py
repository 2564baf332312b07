"""Arms whose settings are another's: their trials are the same trainings again, and say nothing of a change."""

from collections.abc import Mapping

__all__ = ["same_settings", "same_settings_line"]


def same_settings(config_hashes: Mapping[str, str], control: str) -> dict[str, str]:
    """Find the arms with the settings of an arm before them, each with that arm; control comes before all.

    Such an arm is shown, but not compared: its difference from the other is luck, and a test on it would only make
    those of the arms that do change something stricter.
    """
    first: dict[str, str] = {}
    for arm in sorted(config_hashes, key=lambda arm: arm != control):
        first.setdefault(config_hashes[arm], arm)
    return {arm: first[config_hash] for arm, config_hash in config_hashes.items() if first[config_hash] != arm}


def same_settings_line(arm: str, other: str) -> str:
    """Say that an arm is not compared, as its settings are another's."""
    return f"{arm} has the settings of {other}: it is not compared, and no test counts it"
