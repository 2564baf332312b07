"""Tags of an outcome that a training announces before its end. Uses only the standard library."""

from collections.abc import Sequence

from fnostab.record import names


def early_tags(
    outcome: str,
    failure_step: int | None = None,
    known_good_step: int | None = None,
    rules_held: Sequence[str] = (),
    not_judged: Sequence[str] = (),
    reason: str | None = None,
) -> dict[str, str]:
    """Tags of an outcome that a training announces before the event that ends its attempt; empty ones are left out.

    The arguments are the fields of a `fnostab.record.outcomes.Judgement`, and the reason.
    """
    tags = {
        names.OUTCOME: str(outcome),
        names.RULES_HELD: "; ".join(rules_held),
        names.NOT_JUDGED: "; ".join(not_judged),
        names.FAILURE_STEP: "" if failure_step is None else str(failure_step),
        names.FAILURE_AFTER: "" if known_good_step is None else str(known_good_step),
        names.REASON: reason or "",
    }
    return {name: text for name, text in tags.items() if text}
