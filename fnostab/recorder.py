"""Record the training of a script, in two lines. The standard library only; a no-op outside a study.

with Recorder() as rec:
rec.scheduled(steps)
rec.step(i, loss=loss, grad_norm=norm, lr=lr)
rec.validation(i, loss=val_loss)
"""

from fnostab.record.recorder import Recorder

__all__ = ["Recorder"]
