import pytest
import torch
from trial_records import config_of

from fnostab.errors import ModelError
from fnostab.ptychography import metric_names
from fnostab.ptychography.models import build_initialised
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training import module as module_file
from fnostab.ptychography.training.module import PtychoModule
from fnostab.ptychography.training.reconstruction import predict, reconstruct


@pytest.fixture
def make(spec, data):
    """A module with the given settings, its gradients filled by one batch."""

    def build(**settings):
        config = config_of(spec(**settings))
        module = PtychoModule(build_initialised(config.model, 0), data, config)
        module.training_step((data.train.amplitudes[:8], torch.arange(8)), 0).backward()
        return module

    return build


def gradients(module):
    return torch.cat([p.grad.flatten() for p in module.generator.parameters()]).clone()


@pytest.mark.parametrize("algorithm", ["norm", "value", "agc"])
def test_without_a_clip_value_no_gradient_is_touched(make, monkeypatch, algorithm):
    monkeypatch.setattr(module_file, "make_clipper", lambda *_: pytest.fail("clipping was set up"))
    module = make(execution__gradient_clip_algorithm=algorithm)
    (optimizer,) = [module.configure_optimizers()]
    before = gradients(module)
    module.configure_gradient_clipping(optimizer, None, None)
    assert torch.equal(gradients(module), before)
    assert module.clip_fraction is None


def test_each_algorithm_clips_by_its_own_measure(make):
    clipped = {}
    for algorithm in ("norm", "value", "agc"):
        module = make(execution__gradient_clip_algorithm=algorithm, execution__gradient_clip_val=1e-3)
        optimizer = module.configure_optimizers()
        before = gradients(module)
        module.configure_gradient_clipping(optimizer)
        assert 0 < float(module.clip_fraction) <= 1
        clipped[algorithm] = gradients(module)
        assert not torch.equal(clipped[algorithm], before)
    assert float(clipped["norm"].norm()) == pytest.approx(1e-3, rel=1e-4)
    assert float(clipped["value"].abs().max()) == pytest.approx(1e-3)
    assert float(clipped["agc"].norm()) > 1e-3  # the final layer is left out


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_optimisers_are_fused_and_take_their_settings(make, name, kind):
    module = make(
        training__optimizer=name,
        training__learning_rate=0.02,
        training__weight_decay=0.1,
        training__momentum=0.8,
    )
    optimizer = module.configure_optimizers()
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["fused"]
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.1)
    assert group.get("momentum", 0.8) == 0.8
    assert len(group["params"]) == len(list(module.generator.parameters()))


def test_adam_takes_its_beta2(make):
    for name in ("adam", "adamw", "cure_parts.stable_adamw.stable_adamw"):
        (group,) = make(training__optimizer=name, training__adam_beta2=0.9).configure_optimizers().param_groups
        assert group["betas"] == (0.9, 0.9)


def test_agc_can_leave_the_decoder_out(make):
    settings = {"execution__gradient_clip_algorithm": "agc", "execution__gradient_clip_val": 1e-3}
    module = make(**settings, execution__agc_exempt="decoder")
    optimizer = module.configure_optimizers()
    before = {name: p.grad.clone() for name, p in module.generator.named_parameters()}
    module.configure_gradient_clipping(optimizer)
    touched = {name.split(".")[0] for name, p in module.generator.named_parameters() if not p.grad.equal(before[name])}
    assert "encoder" in touched
    assert not touched & {"decoder", "head"}


def test_a_decoder_of_your_own_network_is_found_by_what_it_has_and_not_by_its_name(make):
    settings = {"execution__gradient_clip_algorithm": "agc", "execution__gradient_clip_val": 1e-3}
    module = make(**settings, execution__agc_exempt="decoder", model__architecture="own_networks.WithDecoder")
    module.configure_optimizers()
    exempt = {name for name, parameter in module.generator.named_parameters() if parameter.agc_exempt}
    assert {"decoder.weight", "decoder.bias"} < exempt
    assert not any(name.startswith("first") for name in exempt)
    module = make(**settings, execution__agc_exempt="decoder", model__architecture="own_networks.NoHybrid")
    with pytest.raises(ModelError, match=r"agc_exempt=decoder: NoHybrid has no part of that name; set head"):
        module.configure_optimizers()


def test_what_a_clipper_of_your_own_remembers_goes_into_a_checkpoint_and_out_of_it(make):
    settings = {"execution__gradient_clip_algorithm": "cure_parts.zclip.ZClip", "execution__gradient_clip_val": 2.5}
    module, other = make(**settings), make(**settings)
    module.configure_gradient_clipping(module.configure_optimizers())
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    other.on_load_checkpoint(checkpoint)
    assert other.clipper.state_dict() == module.clipper.state_dict()
    assert other.clipper.state_dict()["count"] == 1
    other.on_load_checkpoint({})  # a training that clipped otherwise before


def test_the_true_objects_are_no_part_of_the_loss(make, data):
    """What the network learns from is the measured amplitude alone."""
    module = make()
    batch = data.train.amplitudes[:4]
    first = module.training_step((batch, torch.arange(4)), 0)
    assert torch.equal(module.training_step((batch, torch.zeros(4, dtype=torch.int64)), 0), first)
    assert not any("object" in name for name, _ in module.named_buffers())


@pytest.mark.parametrize("loss", ["mae", "poisson"])
def test_the_true_patches_have_a_lower_loss_than_any_constant(make, data, loss):
    module = make(training__loss=loss)
    patches = true_patches(data.validation, 16)
    measured = data.validation.amplitudes
    true = float(module.loss(module_file.far_field(module.probe * patches).abs(), measured))
    assert true < 0.2 * module.constant_loss()
    for modulus in (0.3, 0.6, 1.0):
        constant = torch.full_like(patches, modulus)
        loss_of_it = float(module.loss(module_file.far_field(module.probe * constant).abs(), measured))
        assert loss_of_it >= module.constant_loss() * (1 - 1e-4)


def true_patches(split, N):
    rows = zip(split.positions.tolist(), split.image_index.tolist(), strict=True)
    return torch.stack([split.objects[k][None, r : r + N, c : c + N] for (r, c), k in rows])


def test_the_true_patches_reconstruct_the_truth(data, spec):
    ((predicted, truth),) = reconstruct(true_patches(data.validation, 16), data.validation, config_of(spec()).data)
    torch.testing.assert_close(predicted, truth)
    assert min(truth.shape) > 16


def test_prediction_is_in_order_and_in_evaluation_mode(data, spec):
    class Echo(torch.nn.Module):
        def forward(self, amplitudes):
            assert not self.training
            assert not torch.is_grad_enabled()
            return torch.complex(amplitudes, -amplitudes)

    predicted = predict(Echo(), data.train, torch.device("cpu"))
    assert len(data.train.amplitudes) > 64  # more than one batch
    assert torch.equal(predicted.real, data.train.amplitudes)


def test_several_objects_are_stitched_each_for_itself(data, spec):
    two = type(data.validation)(
        amplitudes=data.validation.amplitudes.repeat(2, 1, 1, 1),
        positions=data.validation.positions.repeat(2, 1),
        image_index=torch.arange(2).repeat_interleave(len(data.validation.positions)),
        objects=torch.cat([data.validation.objects, data.test.objects]),
    )
    pairs = reconstruct(true_patches(two, 16), two, config_of(spec()).data)
    for predicted, truth in pairs:
        torch.testing.assert_close(predicted, truth)
    assert not torch.equal(pairs[0][1], pairs[1][1])


def test_a_validation_batch_counts_by_its_size(spec, data, monkeypatch):
    """The last batch is smaller: the loss is that of all patterns at once."""
    config = TrialConfig.model_validate(config_of(spec()).model_dump())
    module = PtychoModule(build_initialised(config.model, 0), data, config).eval()
    logged = {}
    monkeypatch.setattr(module, "log", lambda name, value: logged.update({name: float(value)}))
    with torch.no_grad():
        for batch in data.validation.amplitudes.split(7):
            module.validation_step((batch, torch.arange(len(batch))), 0)
        module.on_validation_epoch_end()
        patches = module(data.validation.amplitudes)
        whole = module.loss(module_file.far_field(module.probe * patches).abs(), data.validation.amplitudes)
    assert len(data.validation.amplitudes) % 7
    assert logged[config.training.val_loss_name] == pytest.approx(float(whole), rel=1e-5)
    assert set(logged) == {
        config.training.val_loss_name,
        metric_names.SPREAD,
        metric_names.PATCH_VARIATION,
        metric_names.DETAIL_CORRELATION,
        metric_names.TWIN_SHARE,
        metric_names.VAL_SSIM_AMP,
        metric_names.VAL_SSIM_PHASE,
    }
