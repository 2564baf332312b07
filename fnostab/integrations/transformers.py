"""Record the training of Hugging Face's Trainer: loss, gradient norm and learning rate of every optimiser step.

The Trainer passes a loss to its callbacks only when it logs, as a mean since the last log in which NaN is replaced
(``logging_nan_inf_filter``). The losses recorded here are those that ``training_step`` returns, before that filter.
"""

import os
import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fnostab.errors import ConfigError, JournalError
from fnostab.record.recorder import JOURNAL_VARIABLE, NAME_CHARACTERS, Recorder

PREFIX = "eval_"
DURATIONS = (  # ends of the names by which the Trainer gives the speed of an evaluation
    "_runtime",
    "_samples_per_second",
    "_steps_per_second",
    "_model_preparation_time",
    "_jit_compilation_time",
)
_OTHER = re.compile(rf"[^{NAME_CHARACTERS}]")  # as in recall@5


class StabilityCallback(TrainerCallback):
    """Records a training in the trial for which the script was started; outside a study it does nothing.

    Call ``trainer.add_callback(StabilityCallback(trainer))`` before ``trainer.train()``.

    A step is an optimiser step: under gradient accumulation its loss is the sum of what ``training_step`` returns for
    its batches, and with several processes the mean over them. The gradient norm is the one before clipping, also where
    ``max_grad_norm`` is 0. No norm is recorded for a step that a loss scaler (fp16) skipped. ``eval_loss`` is the
    validation loss, every other ``eval_NAME`` the measure ``val/NAME``, with ``_`` for characters that no metric name
    can have. The training ends once the trial has failed, unless the study sets ``after_failure: continue``.

    Evaluations before the first step are not recorded, nor those after a training that loaded its best weights
    (``load_best_model_at_end``), since their values are not those of the last step.

    Args:
        trainer: the Trainer, whose ``train``, ``training_step`` and ``accelerator.clip_grad_norm_`` are wrapped.

    Raises:
        ConfigError: ``trainer`` is not a Trainer, or has such a callback already.
        JournalError: while training, as `Recorder`, or because a second training begins at a recorded step.
    """

    _loss: Any
    _norm: Any
    _lr: float | None

    def __init__(self, trainer: Trainer) -> None:
        if not isinstance(trainer, Trainer):
            raise ConfigError(
                f"StabilityCallback({type(trainer).__name__}): expected a Trainer, StabilityCallback(trainer)"
            )
        if any(isinstance(each, StabilityCallback) for each in trainer.callback_handler.callbacks):
            raise ConfigError("this Trainer has a StabilityCallback already: add one")
        self._trainer = trainer
        self._inside = JOURNAL_VARIABLE in os.environ  # true in all processes of a trial: each follows the same numbers
        self._recorder: Recorder | None = None
        self._accelerator: Any = None
        self._evaluated: tuple[int, set[str]] = (-1, set())
        self._forget()
        if self._inside:
            trainer.train = self._ended(trainer.train)
            trainer.training_step = self._followed(trainer.training_step, self._take_loss)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        if self._inside:
            accelerator = self._trainer.accelerator
            if accelerator is not self._accelerator:  # a new one may replace it before a training
                self._accelerator = accelerator
                accelerator.clip_grad_norm_ = self._followed(accelerator.clip_grad_norm_, self._take_norm)
            if self._recorder is not None:  # of an attempt of auto_find_batch_size
                self._recorder.close()
            self._recorder = Recorder()
            last = self._recorder.last_step
            if last is None:
                self._evaluated = (-1, set())
            if last is not None and last >= state.global_step:
                raise JournalError(
                    f"training starts at step {state.global_step}, but step {last} is recorded: a trial is one "
                    "training; call train() once, of one Trainer, and leave out auto_find_batch_size"
                )
            self._recorder.scheduled(state.max_steps)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        self._forget()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        self._lr = others["optimizer"].param_groups[0].get("lr")  # Adafactor may have none

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        if self._recorder is None:
            return
        accelerator = self._trainer.accelerator
        loss = None if self._loss is None else accelerator.reduce(self._loss, reduction="mean")
        norm = None if accelerator.optimizer_step_was_skipped else self._norm
        if not self._recorder.step(state.global_step - 1, loss=loss, grad_norm=norm, lr=self._lr):
            control.should_training_stop = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        step = state.global_step - 1
        after_training = self._recorder is None
        if not self._inside or step < 0 or (after_training and args.load_best_model_at_end):
            return
        known = self._evaluated[1] if self._evaluated[0] == step else set()
        values = {
            _OTHER.sub("_", name.removeprefix(PREFIX)): value
            for name, value in (metrics or {}).items()
            if name.startswith(PREFIX) and not name.endswith(DURATIONS) and isinstance(value, int | float)
        }
        values = {name: value for name, value in values.items() if name not in known}
        self._evaluated = step, known | values.keys()
        if not values:
            return
        recorder = self._recorder or Recorder()
        if not recorder.validation(step, **values):
            control.should_training_stop = True
        if after_training:
            recorder.close()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def _forget(self) -> None:
        self._loss = self._norm = self._lr = None

    def _take_loss(self, loss: Any) -> None:
        loss = loss.float()  # many small batches add up to nothing in bfloat16
        self._loss = loss if self._loss is None else self._loss + loss

    def _take_norm(self, norm: Any) -> None:
        self._norm = norm if self._norm is None else self._norm

    def _ended(self, train: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a Trainer's ``train`` so that an exception which ends it ends the record too."""

        @wraps(train)
        def follow(*args: Any, **named: Any) -> Any:
            try:
                return train(*args, **named)
            except BaseException as error:
                recorder, self._recorder = self._recorder, None
                if recorder is not None:
                    recorder.__exit__(type(error), error, error.__traceback__)
                raise

        return follow

    @staticmethod
    def _followed(method: Callable[..., Any], take: Callable[[Any], None]) -> Callable[..., Any]:
        """Wrap a method so that ``take`` is called with each result."""

        @wraps(method)
        def follow(*args: Any, **named: Any) -> Any:
            result = method(*args, **named)
            take(result)
            return result

        return follow
