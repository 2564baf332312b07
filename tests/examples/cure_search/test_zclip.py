"""ZClip: what stands out is pulled back, and what does not is left alone."""

import math

import pytest
import torch
from cure_parts.zclip import WARMUP_STEPS, ZClip
from torch import nn

from fnostab.ptychography.settings import TrialConfig

THRESHOLD = {"gradient_clip_algorithm": "cure_parts.zclip.ZClip", "gradient_clip_val": 2.5}


@pytest.fixture
def parameter():
    return nn.Parameter(torch.zeros(4))


def step(clip, parameter, norm):
    """The norm that is left of a gradient of the given one, and the clipped share."""
    parameter.grad = torch.full((4,), norm / 2)
    share = float(clip([parameter]))
    return float(parameter.grad.norm()), share


def warmed_up(parameter):
    """After 25 norms of mean 2 and standard deviation 0.5, which are not clipped."""
    clip = ZClip(TrialConfig.model_validate({"execution": THRESHOLD}))
    off = 0.5 * math.sqrt(WARMUP_STEPS / (WARMUP_STEPS - 1))
    for i in range(WARMUP_STEPS):
        norm = 2.0 if i == 0 else 2.0 + (off if i % 2 else -off)
        assert step(clip, parameter, norm) == (pytest.approx(norm), 0)
    state = clip.state_dict()
    assert (float(state["mean"]), float(state["variance"])) == (pytest.approx(2.0), pytest.approx(0.25))
    return clip


def test_a_spike_is_pulled_back_the_more_the_higher_it_is(parameter):
    """z = (7 - 2) / 0.5 = 10, so that 2.5^2 / 10 = 0.625 standard deviations are left: 2.3125."""
    assert step(warmed_up(parameter), parameter, 7.0) == (pytest.approx(2.3125), 1)
    assert step(warmed_up(parameter), parameter, 1e6)[0] == pytest.approx(2.0, abs=1e-4)


def test_what_is_usual_or_low_is_left_alone(parameter):
    for norm in (0.01, 2.0, 3.2):
        assert step(warmed_up(parameter), parameter, norm) == (pytest.approx(norm), 0)


def test_the_averages_move_with_what_is_left_of_a_norm(parameter):
    clip = warmed_up(parameter)
    step(clip, parameter, 7.0)
    assert float(clip.state_dict()["mean"]) == pytest.approx(0.97 * 2.0 + 0.03 * 2.3125)


def test_a_norm_that_is_not_finite_is_forgotten(parameter):
    clip = warmed_up(parameter)
    before = {name: float(value) for name, value in clip.state_dict().items()}
    for norm in (math.nan, math.inf):
        step(clip, parameter, norm)
    assert {name: float(value) for name, value in clip.state_dict().items()} == before
    assert step(clip, parameter, 7.0)[1] == 1


def test_it_goes_on_where_another_stopped(parameter):
    clip, other = warmed_up(parameter), ZClip(TrialConfig.model_validate({"execution": THRESHOLD}))
    other.load_state_dict(clip.state_dict())
    assert step(other, parameter, 7.0) == step(clip, parameter, 7.0)
