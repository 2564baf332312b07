"""Arms with the settings of another arm: their trials repeat the same trainings and show no effect."""

from collections.abc import Mapping


def same_settings(config_hashes: Mapping[str, str], control: str) -> dict[str, str]:
    """Map each arm with the settings of an earlier arm to that arm; control comes first.

    Such an arm is shown but not compared: its difference from the other is luck, and testing it would only make the
    tests of the other arms stricter.
    """
    first: dict[str, str] = {}
    for arm in sorted(config_hashes, key=lambda arm: arm != control):
        first.setdefault(config_hashes[arm], arm)
    return {arm: first[config_hash] for arm, config_hash in config_hashes.items() if first[config_hash] != arm}


def same_settings_line(arm: str, other: str) -> str:
    """Message that an arm is not compared because it has the settings of another."""
    return f"{arm} has the settings of {other}: it is not compared, and no test counts it"
