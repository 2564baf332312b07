"""Report that trials do not record the study's metric, and name the metrics they record."""

from collections.abc import Collection
from pathlib import Path

from fnostab.record.journal_outcomes import read_recorded
from fnostab.record.names import GRAD_NORM, LEARNING_RATE, TRAIN_LOSS, VAL_PREFIX
from fnostab.record.settings import suggestion


def metric_not_in_journal(metric: str, directory: Path) -> str | None:
    """Message of `metric_not_recorded` for one ended trial; None if it recorded the metric.

    Raises:
        JournalError: the journal is missing or damaged.
    """
    recorded = read_recorded(directory).curves
    return None if metric in recorded else metric_not_recorded(metric, recorded, f"{directory.name} did not record")


def metric_not_recorded(metric: str, recorded: Collection[str], lead: str = "no trial recorded") -> str:
    """Say that no trial recorded a metric such as ``val/loss``, and name the recorded ones."""
    validation = sorted(name for name in recorded if name.startswith(VAL_PREFIX))
    if validation:
        return f"{lead} {metric}; recorded: {', '.join(validation)}{suggestion(metric, validation)}"
    others = [name for name in (TRAIN_LOSS, GRAD_NORM, LEARNING_RATE) if name in recorded]
    hint = f"rec.validation(i, loss=...), or a monitor and self.log('val_loss', ...), records {VAL_PREFIX}loss"
    logged = metric.removeprefix(VAL_PREFIX)
    if logged != "loss":
        hint += f"; if the module logs {logged!r}, use StabilityMonitor(val_loss_name={logged!r})"
        hint += "" if metric.startswith(VAL_PREFIX) else f", which records {VAL_PREFIX}{logged}"
    return f"{lead} {metric}; recorded: {', '.join(others) or 'no validation'}; {hint}"
