"""Doctor's findings on libraries and extras."""

import tomllib
from pathlib import Path

import pytest

from fnostab.doctor import Check, Finding, State, installation, installation_checks, look

ROOT = Path(__file__).parent.parent.parent


def test_what_is_tested_with_is_what_the_tests_install():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert {name: pins[name] for name in installation.TESTED} == installation.TESTED


def test_extras_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert installation.EXTRAS.keys() <= project["optional-dependencies"].keys()


def test_here_all_is_well():
    assert {finding.state for _, finding in look(installation_checks())} == {State.OK}


@pytest.mark.parametrize(
    ("tested", "state", "words"),
    [
        ({"no-such-library": "1.0.0"}, "failed", "is not installed; `pip install 'no-such-library==1.0.0'`"),
        (
            {"numpy": "1.0.0"},
            "warning",
            "but the tested version is 1.0.0; if something misbehaves, `pip install 'numpy==1.0.0'`",
        ),
    ],
)
def test_a_library_that_is_missing_or_of_another_version(monkeypatch, tested, state, words):
    monkeypatch.setattr(installation, "TESTED", tested)
    found = dict(look(installation_checks()))[next(iter(tested))]
    assert (found.state, words in found.text) == (state, True)


def test_torch_is_needed_by_trainings_only(monkeypatch):
    monkeypatch.setattr(installation, "TESTED", {"no-such-torch": "1.0.0"})
    monkeypatch.setattr(installation, "ONLY_FOR_TRAINING", ("no-such-torch",))
    found = dict(look(installation_checks()))["no-such-torch"]
    assert (found.state, found.text.split(";")[0]) == (State.OK, "not installed")
    assert "pip install 'fnostab[torch]'" in found.text


def test_an_extra_that_is_missing_is_named_with_its_use(monkeypatch):
    monkeypatch.setattr(installation, "EXTRAS", {"auth": ("no_such_module", "fnostab serve --auth")})
    found = dict(look(installation_checks()))["extras"]
    assert found.text == "none; without auth (`pip install 'fnostab[auth]'`, for fnostab serve --auth)"


def test_a_check_that_breaks_hangs_or_fails_leaves_the_others():
    import threading

    def breaks():
        raise KeyError("odd")

    def well():
        return Finding(State.OK, "")

    hangs = threading.Event().wait
    checks = [Check("breaks", breaks, 5, ""), Check("hangs", hangs, 0.1, "do this"), Check("well", well, 5, "")]
    found = list(look(checks))
    assert [(name, each.state) for name, each in found] == [("breaks", "failed"), ("hangs", "failed"), ("well", "ok")]
    assert found[1][1].text == "no answer within 0.1 s; do this"
    assert [name for name, _ in look([Check("breaks", breaks, 5, "", decides=True), *checks])] == ["breaks"]
