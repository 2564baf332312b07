from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from trial_records import config_of

from fnostab.errors import ConfigError, LaunchError
from fnostab.ptychography.models import build_generator, build_initialised
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.module import PtychoModule
from fnostab.ptychography.training.precision import arithmetic, convolutions_in
from fnostab.ptychography.training.setup import set_up
from fnostab.record import names
from fnostab.record.outcomes import FAILURES

ARCHITECTURES = ["hybrid", "stable_hybrid", "fno"]


@pytest.fixture
def step(spec, data):
    """Loss, gradients and format of every layer's output, of one training step."""

    def run(architecture, precision):
        config = config_of(spec(model__architecture=architecture, execution__convolution_precision=precision))
        module = PtychoModule(build_initialised(config.model, 0), data, config)
        formats = {}
        for name, layer in module.generator.named_modules():
            layer.register_forward_hook(lambda layer, x, y, name=name: formats.update({name: y.dtype}))
        loss = module.training_step((data.train.amplitudes[:8], torch.arange(8)), 0)
        loss.backward()
        return loss.detach(), {name: p.grad for name, p in module.generator.named_parameters()}, formats

    return run


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_is_for_real_convolutions_alone(step, architecture):
    loss, gradients, formats = step(architecture, "bfloat16")
    exact, exact_gradients, _ = step(architecture, "float32")
    assert loss != exact
    assert loss == pytest.approx(float(exact), rel=0.02)
    assert {formats[name] for name in formats if name.endswith(("conv", "head"))} == {torch.bfloat16}
    assert {formats[name] for name in formats if name.endswith(("spectral", "gain"))} == {torch.float32}
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all()
        assert gradient.shape == exact_gradients[name].shape


def test_a_trial_trains_in_bfloat16(trained):
    exact, rounded = trained(seed=1), trained(seed=1, execution__convolution_precision="bfloat16")
    assert rounded.outcome not in FAILURES
    first, expected = rounded.curve(names.TRAIN_LOSS)[0], exact.curve(names.TRAIN_LOSS)[0]
    assert first == pytest.approx(expected, rel=0.02)
    assert first != expected


def test_it_is_a_part_of_the_trials_identity():
    """Since it changes the numbers: it can be an arm."""
    configs = [TrialConfig.from_dotted({"execution.convolution_precision": p}) for p in ("float32", "bfloat16", "tf32")]
    assert len({config.config_hash for config in configs}) == 3
    assert TrialConfig().execution.convolution_precision == "float32"


def test_an_option_without_effect_is_refused():
    with pytest.raises(ConfigError, match="tf32 has no effect with device=cpu: use float32 or bfloat16"):
        TrialConfig.from_dotted({"execution.convolution_precision": "tf32", "execution.device": "cpu"})
    with pytest.raises(LaunchError, match="tf32 has no effect on a cpu"), arithmetic("tf32", torch.device("cpu")):
        pass


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("default", [True, False])
def test_tf32_is_off_while_it_is_not_asked_for(monkeypatch, precision, default):
    """Torch has it on for convolutions by default."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", default)
    with arithmetic(precision, torch.device("cpu")):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 is default


def test_a_training_on_a_cpu_has_no_subnormal_numbers(spec, tmp_path):
    """They make a step of a trained network many times slower: see `python -m benchmarks --only step`."""
    products = []

    class Multiply(Callback):
        def on_after_backward(self, trainer, pl_module):
            products.append(float(torch.tensor([1e-38]) * 0.5))

    set_up(spec()).fit([Multiply()], torch.device("cpu"), tmp_path)
    assert set(products) == {0.0}
    assert float(torch.tensor([1e-38]) * 0.5) > 0  # only during the training


def test_a_thread_of_a_training_goes_on_without_them_when_an_inner_one_has_ended():
    """As in lockstep, where a training that has ended computes for the others."""

    def after_an_inner_one():
        with arithmetic("float32", torch.device("cpu")):
            pass
        return float(torch.tensor([1e-38]) * 0.5)

    with arithmetic("float32", torch.device("cpu")), ThreadPoolExecutor(1) as pool:
        assert pool.submit(after_an_inner_one).result() == 0
    assert after_an_inner_one() > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sizes_are_counted_whatever_it_is(spec, precision):
    """On the meta device, which has no autocast."""
    config = config_of(spec(execution__convolution_precision=precision))
    meta = torch.device("meta")
    with meta, convolutions_in(precision, meta):
        patch = build_generator(config.model)(torch.empty(2, 1, config.model.N, config.model.N))
    assert patch.shape == (2, 1, config.model.N, config.model.N)
