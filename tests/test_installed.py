"""The package as it is installed: what is no module is there too, from a wheel, in place, and not installed at all."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SAYS = """
import json, sys
import fnostab
from fnostab.tasks.registry import built_in_studies
from fnostab.tracking.pages.views import VIEWS, _view, dashboards
from fnostab.report.documents import environment
print(json.dumps({
    "package": fnostab.__file__, "version": fnostab.__version__, "dashboards": str(dashboards()),
    "titles": [_view(name)["title"] for name in VIEWS], "studies": list(built_in_studies()),
    "templates": sorted(environment("fnostab.ptychography.report").list_templates()),
}))
"""


@pytest.fixture(scope="module")
def what_is_there(tmp_path_factory, environment):
    """What the package says of itself in a fresh environment, outside of the checkout, after ``pip install GIVEN``."""
    pytest.importorskip("hatchling", reason="needs the extra dev")
    bare = {name: value for name, value in environment.items() if name not in ("PYTHONPATH", "PYTHONHOME")}

    def ask(*given, **more):
        home = tmp_path_factory.mktemp("installed")
        venv.create(home / "env", symlinks=True)
        python = home / "env" / "bin" / "python"
        site = sysconfig.get_path("purelib", vars={"base": home / "env", "platbase": home / "env"})
        import hatchling

        shared = {sysconfig.get_path("purelib"), str(Path(hatchling.__file__).parents[1])}
        Path(site, "shared.pth").write_text(
            "\n".join(sorted(shared))
        )  # what it depends on; a .pth in there is not read
        if given:
            pip = [
                sys.executable,
                "-m",
                "pip",
                "--python",
                str(python),
                "install",
                "--quiet",
                "--no-deps",
                "--no-index",
            ]
            subprocess.run([*pip, "--no-build-isolation", *given], env=bare, cwd=home, check=True)
        said = subprocess.run([python, "-c", SAYS], env=bare | more, cwd=home, capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        return json.loads(said.stdout), Path(site)

    return ask


@pytest.fixture(scope="module")
def checkout(what_is_there):
    """Nothing is installed, as `mlflow run .` finds it."""
    return what_is_there(PYTHONPATH=str(ROOT))[0]


def test_a_checkout_has_the_charts_beside_the_package(checkout):
    assert Path(checkout["package"]) == ROOT / "fnostab" / "__init__.py"
    assert Path(checkout["dashboards"]) == ROOT / "dashboards"
    assert len(checkout["titles"]) == len(list((ROOT / "dashboards").glob("*.json")))


def test_a_wheel_holds_all_that_a_checkout_has(what_is_there, checkout):
    there, site = what_is_there(str(ROOT))
    assert Path(there.pop("package")) == site / "fnostab" / "__init__.py"
    assert Path(there.pop("dashboards")) == site / "fnostab" / "dashboards"
    assert there == {name: value for name, value in checkout.items() if name not in ("package", "dashboards")}
    tracked = {path.relative_to(ROOT) for path in (ROOT / "fnostab").rglob("*") if path.is_file()}
    missing = [path for path in tracked if path.suffix != ".pyc" and not (site / path).is_file()]
    assert missing == []
    (metadata,) = site.glob("fnostab-*.dist-info/METADATA")
    description = metadata.read_text().partition("\n\n")[2]
    assert description.startswith("# fnostab\n")
    assert re.findall(r"\]\((?!http)|<!--", description) == []  # a package index has none of the repository's files
    assert f"fnostab-{there['version']}-py3-none-any.whl" in description
    assert re.search(r"^\*\*At .* failed in \d+ of \d+ seeds", description, re.MULTILINE)  # in the picture's place


def test_an_editable_install_reads_the_charts_of_the_checkout(what_is_there, checkout):
    there, _ = what_is_there("--editable", str(ROOT))
    assert there == checkout


def test_an_sdist_runs_its_tests(tmp_path, environment):
    pytest.importorskip("hatchling", reason="needs the extra dev")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("fnostab-*.tar.gz")
    shutil.unpack_archive(archive, tmp_path, filter="data")
    folder = archive.with_suffix("").with_suffix("")
    command = [sys.executable, "-m", "pytest", "-q", "tests/study"]
    bare = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"\d{2,} passed", ended.stdout)
