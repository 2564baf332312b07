"""Record the training of a script.

    with Recorder() as rec:
        rec.scheduled(steps)
        rec.step(i, loss=loss, grad_norm=norm, lr=lr)
        rec.validation(i, loss=val_loss)

Uses only the standard library; outside a study it records nothing, and `step` still returns False after a NaN.
"""

from fnostab.record.recorder import Recorder

__all__ = ["Recorder"]
