"""Lines that are printed before a study's trials start."""

import pytest
import torch
from trial_records import trial_spec

from fnostab import gpus
from fnostab.ptychography.preparation import prepare_trials


@pytest.mark.parametrize(
    ("device", "here", "said"), [("auto", True, True), ("cpu", True, False), ("auto", False, False)]
)
def test_a_gpu_that_torch_can_not_use_is_named(tiny_settings, tmp_path, monkeypatch, device, here, said):
    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU")
    monkeypatch.setattr(gpus, "present_gpus", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    spec = trial_spec(tiny_settings | {"execution.device": device}, shared_dir=tmp_path)
    notices = prepare_trials([spec.model_dump_json()], here=here, lockstep=False)
    line = "torch can't use the GPU of this machine, so trials run on the CPU: `fnostab doctor` says why"
    assert notices == ([line] if said else [])
