"""One step of each arm before its study: arms whose step fails are refused, with the cause, before any trial."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fnostab.errors import LaunchError
from fnostab.ptychography.first_step import failure_of_first_step, insist_on_first_step
from fnostab.ptychography.settings import TrialConfig

STABLE_ADAMW, ZCLIP = "cure_parts.stable_adamw.stable_adamw", "cure_parts.zclip.ZClip"  # of examples/cure_search


class Complex(nn.Module):
    """Its weights are complex, and it puts real channels together, for which torch takes no bfloat16."""

    def __init__(self, config):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(1, dtype=torch.cfloat))
        self.dropout = nn.Dropout(0.1)

    def forward(self, amplitudes):
        return torch.complex(*self.dropout(self.conv(amplitudes)).chunk(2, dim=1)) * self.gain.conj()


class NoWayBack(Complex):
    """Its backward pass raises, in training alone."""

    def __init__(self, config):
        super().__init__(config)
        self.gain.register_hook(self.refuse)

    def refuse(self, gradient):
        raise ValueError("no way\nback")


class NoReset(Complex):
    """Its layer can't be initialised once it is built."""

    def __init__(self, config):
        super().__init__(config)
        self.conv.reset_parameters = lambda gain: None


def config(tiny_settings, network=None, **settings):
    own = {} if network is None else {"model.architecture": f"{__name__}.{network.__name__}"}
    return TrialConfig.from_dotted(tiny_settings | own | {k.replace("__", "."): v for k, v in settings.items()})


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", STABLE_ADAMW])
@pytest.mark.parametrize("clip", [("norm", None), ("norm", 0.1), ("value", 0.1), ("agc", 0.01), (ZCLIP, 2.5)])
def test_complex_weights_are_accepted(tiny_settings, optimizer, clip):
    algorithm, value = clip
    execution = {"execution__gradient_clip_algorithm": algorithm, "execution__gradient_clip_val": value}
    assert failure_of_first_step(config(tiny_settings, Complex, training__optimizer=optimizer, **execution)) is None


def test_what_fails_is_refused_in_one_line_with_arms_and_cause(tiny_settings):
    arms = {
        "good": config(tiny_settings),
        "plain": config(tiny_settings, Complex),
        "half": config(tiny_settings, Complex, execution__convolution_precision="bfloat16"),
        "broken": config(tiny_settings, NoWayBack),
        "slower": config(tiny_settings, NoWayBack, training__learning_rate=1e-5),
    }
    with pytest.raises(LaunchError) as refused:
        insist_on_first_step(arms, here=True)
    half, broken = str(refused.value).split("; ")
    assert half.startswith("arm half can't make a training step: RuntimeError: ")
    assert "BFloat16" in half
    said, _, line = broken.rpartition(":")
    assert said == f"arms broken, slower can't make a training step: ValueError: no way back at {__file__}"
    assert "raise ValueError" in Path(__file__).read_text().splitlines()[int(line) - 1]


def test_a_schedule_is_tried_too(tiny_settings):
    settings = {"training__schedule": "warmup_cosine", "training__warmup_epochs": 0.5}
    assert failure_of_first_step(config(tiny_settings, **settings)) is None


def test_where_trials_run_elsewhere_a_setting_for_their_gpu_is_no_reason(tiny_settings):
    arms = {"gpu": config(tiny_settings, execution__device="cuda", execution__convolution_precision="tf32")}
    insist_on_first_step(arms, here=False)


def test_a_refused_study_starts_no_trial(study):
    with pytest.raises(LaunchError, match="arm control can't make a training step: ValueError: no way back"):
        study.start(settings={"model.architecture": f"{__name__}.NoWayBack"})
    assert not list(study.folder.rglob("trial.json"))


def test_layers_are_initialised_as_in_a_trial(tiny_settings):
    why = failure_of_first_step(config(tiny_settings, NoReset))
    assert why.startswith("TypeError: ")
    assert "missing 1 required positional argument: 'gain'" in why
