"""Parts of one's own by their dotted path: built when they are used, known by their file, refused before a trial."""

import sys

import pytest
import torch

from fnostab.errors import ConfigError, LaunchError, ModelError
from fnostab.ptychography.first_step import insist_on_first_step
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.task import Ptychography
from fnostab.ptychography.training.schedules import make_schedule
from fnostab.ptychography.user_parts import code_hash, make_own

PART = {"training.optimizer": "fnostab_own_part.sgd"}
SOURCE = """
import torch

def sgd(network, config):
    training = config.training
    return torch.optim.SGD(network.parameters(), training.learning_rate * training.options.get("times", 1))
"""


@pytest.fixture
def part(tmp_path, monkeypatch):
    """File of a part, in a folder on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "fnostab_own_part.py"
    path.write_text(SOURCE)
    yield path
    sys.modules.pop("fnostab_own_part", None)


def half_way(steps, config):
    """A schedule: the rate is halved after half of the steps."""
    return lambda step: 1.0 if step < steps // 2 else 0.5


def nothing(*arguments):
    return None


def raises(*arguments):
    raise ValueError("not\nthis way")


def hash_of(**more):
    return Ptychography().resolve([PART | more], "small")["code_hash"]


def test_a_part_is_known_by_its_file(part):
    before = hash_of()
    assert before is not None
    assert hash_of() == before
    part.write_text(SOURCE + "# another line\n")
    assert hash_of() != before
    assert Ptychography().resolve([{}], "small")["code_hash"] is None


def test_a_new_file_is_a_new_trial(part):
    def identity():
        task = Ptychography()
        return task.identity(task.resolve([PART], "small"))

    before = identity()
    assert identity() == before
    part.write_text(SOURCE + "# another line\n")
    assert identity() != before


def test_a_file_is_found_without_running_it_or_its_packages(tmp_path, monkeypatch):
    inside = tmp_path / "fnostab_own_package" / "inside"
    inside.mkdir(parents=True)
    for folder in (inside, inside.parent):
        (folder / "__init__.py").write_text("raise RuntimeError('run')")
    (inside / "part.py").write_text("raise RuntimeError('run')")
    monkeypatch.syspath_prepend(tmp_path)
    assert code_hash([("model.block", "fnostab_own_package.inside.part.Block")]) is not None
    assert "fnostab_own_package" not in sys.modules


@pytest.mark.parametrize("path", ["no_such_module.Part", "torch.no_such_module.Part", "json.decoder.deeper.Part"])
def test_a_file_that_is_not_there_is_refused_with_its_setting(path):
    with pytest.raises(ConfigError, match=r"^model\.block: can't find the file of the module .*PYTHONPATH") as refused:
        Ptychography().resolve([{"model.block": path}], "small")
    assert refused.value.setting == "model.block"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", r"training\.optimizer=\S+\.nothing: expected an instance of Optimizer, got NoneType"),
        ("raises", r"training\.optimizer=\S+\.raises raised ValueError: not this way at .*test_user_parts\.py:\d+$"),
        ("nowhere", "nowhere does not exist in .*; expected a class or function"),
    ],
)
def test_what_a_part_does_wrong_is_said_in_one_line(name, message):
    with pytest.raises(ModelError, match=message) as refused:
        make_own("training.optimizer", f"{__name__}.{name}", torch.optim.Optimizer)
    assert "\n" not in str(refused.value)


SETTINGS = {
    "model.block": {},
    "model.decoder_activation": {},
    "model.head": {},
    "training.optimizer": {},
    "training.schedule": {},
    "execution.gradient_clip_algorithm": {"execution.gradient_clip_val": 1.0},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_step_is_tried_with_each_part_before_a_study_starts(tiny_settings, setting):
    config = TrialConfig.from_dotted({**tiny_settings, setting: f"{__name__}.raises", **SETTINGS[setting]})
    with pytest.raises(LaunchError, match=r"arm a can't make a training step: .*raised ValueError: not this way"):
        insist_on_first_step({"a": config}, here=True)


def test_an_optimiser_of_ones_own_has_its_options(part, tiny_settings):
    config = TrialConfig.from_dotted(tiny_settings | PART | {"training.options.times": 3})
    optimizer = make_own("training.optimizer", config.training.optimizer, object, torch.nn.Linear(2, 2), config)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(3 * config.training.learning_rate)
    insist_on_first_step({"a": config}, here=True)


def test_a_schedule_of_ones_own_knows_how_many_steps_there_are(tiny_settings):
    config = TrialConfig.from_dotted(tiny_settings | {"training.schedule": f"{__name__}.half_way"})
    factor = make_schedule(config, 10)
    assert [factor(step) for step in (0, 4, 5, 9)] == [1, 1, 0.5, 0.5]


ENDS = {"on import": "import sys\nsys.exit('no licence')\n", "when called": "def sgd(*_):\n    raise SystemExit(3)\n"}


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("on import", r"importing fnostab_own_part ends the program \(SystemExit: no licence\); .* '__main__'"),
        ("when called", r"fnostab_own_part.sgd raised SystemExit: 3"),
    ],
)
def test_a_part_that_ends_the_program_is_refused_as_any_other_that_fails(part, when, said):
    part.write_text(ENDS[when])
    with pytest.raises(ModelError, match=said):
        make_own("training.optimizer", "fnostab_own_part.sgd", object)
