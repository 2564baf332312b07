"""Tags of a run that hold an outcome. Uses only the standard library."""

from collections.abc import Mapping
from typing import Any

from fnostab.record import names

OUTCOME_TAGS = {  # field of an outcome event, or of a Judgement -> tag
    "outcome": names.OUTCOME,
    "failure_step": names.FAILURE_STEP,
    "known_good_step": names.FAILURE_AFTER,
    "rules_held": names.RULES_HELD,
    "not_judged": names.NOT_JUDGED,
    "reason": names.REASON,
}


def outcome_tags(fields: Mapping[str, Any]) -> dict[str, str]:
    """Tags for the fields of an outcome, without those that are empty.

    A training that announces its outcome before its end records them; a run gets them at its end.
    """
    given = {tag: fields[field] for field, tag in OUTCOME_TAGS.items() if fields.get(field) not in (None, "", [], ())}
    return {tag: "; ".join(value) if isinstance(value, list | tuple) else str(value) for tag, value in given.items()}
