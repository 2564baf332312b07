"""Rules of the project as a whole: who imports whom, what is installed and started, how files begin."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fnostab.cli import group

ROOT = Path(__file__).parent.parent
WORDS = {"__version__", "errors", "gpus", "seeding", "startup"}
MAY_IMPORT = {  # besides the words; docs/architecture.md draws it
    **{word: set() for word in WORDS},
    "record": set(),
    "recorder": {"record"},
    "stats": set(),
    "decision": {"record", "stats"},
    "tasks": {"record", "tracking"},
    "study": {"record", "tasks"},
    "monitor": {"record", "recorder"},
    "integrations": {"record"},
    "figures": {"record", "stats"},
    "tracking": {"record"},
    "show": {"record", "stats", "tracking"},
    "launch": {"record", "study", "tasks", "show", "tracking"},
    "report": {"record", "decision", "stats", "tracking", "figures", "show"},
    "asking": {"record", "study", "tasks", "launch", "tracking", "report"},
    "serve": {"tracking"},
    "doctor": {"record", "tracking"},
    "prune": {"record", "tracking", "figures"},
}
ONLY_IN = {  # libraries that are heavy, or that another one could replace
    "mlflow": {"tracking"},
    "alembic": {"tracking"},
    "sqlalchemy": {"tracking"},
    "requests": {"tracking"},
    "lightning": {"monitor", "ptychography"},
    "torch": {"monitor", "ptychography", "tracking"},
    "matplotlib": {"figures", "report", "ptychography"},
    "skimage": {"ptychography"},
    "jinja2": {"report"},
    "click": {"cli", "ptychography"},
    "submitit": {"launch"},
    "transformers": {"integrations"},
}
OF_THE_TASK = re.compile(r"ssim|ptychogr|reconstruct|twin image|diffraction|scale model|layerscale", re.IGNORECASE)
NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
QUESTION = re.compile(r"(What|Why|Those|How|Who|Whose|Which|Where|When)\b")
EXTRA = {
    "apprise": "notify",
    "h5py": "data",
    "lightning": "torch",
    "safetensors": "torch",
    "scikit-image": "torch",
    "submitit": "slurm",
    "torch": "torch",
    "transformers": "transformers",
}  # imported only where asked for
COMES_WITH = {"alembic": "mlflow", "markupsafe": "jinja2", "requests": "mlflow", "sqlalchemy": "mlflow"}
MODULE_OF = {"scikit-image": "skimage", "pyyaml": "yaml"}


def without_annotations(tree):
    """The nodes of a module but for what only type checkers import."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


@cache
def modules():
    """{module of fnostab: modules that it imports, early or late}, as {"fnostab.stats.rate": {"fnostab.errors"}}."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.glob("fnostab/**/*.py")}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    found = {name: set() for name in paths}
    for name, path in paths.items():
        for node in without_annotations(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                found[name] |= {each if each in paths or node.module == "fnostab" else node.module for each in whole}
    return found


@cache
def imports():
    """{part of fnostab: modules that its files import}, as in {"stats": {"numpy", "fnostab.errors"}}."""
    found = defaultdict(set)
    for name, imported in modules().items():
        found[[*name.split("."), "__init__"][1]] |= imported
    return found


@pytest.fixture(scope="module")
def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirements(name):
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


@pytest.fixture(scope="module")
def clean(environment):
    """``python ARGUMENTS`` in a process that nobody has configured: what it prints."""
    signs = ("MLFLOW_", "CI", "PYTEST_", "GITHUB_", "DO_NOT_TRACK")  # of which each would switch telemetry off

    def run(*arguments):
        bare = {name: value for name, value in environment.items() if not name.startswith(signs)}
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=bare, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()

    return run


class TestWalls:
    def test_each_part_imports_only_what_stands_below_it(self):
        parts = imports()
        known = MAY_IMPORT.keys() | {"__init__", "__main__", "cli", "ptychography"}
        assert parts.keys() <= known, "a new part: say in MAY_IMPORT what it may import"
        for part, allowed in MAY_IMPORT.items():
            others = {m.split(".")[1] for m in parts[part] if m.startswith("fnostab.")} - {part}
            assert others <= allowed | WORDS, f"{part} imports {others - allowed - WORDS}"

    @pytest.mark.parametrize("depth", [2, 3, None], ids=["rooms", "sub-rooms", "modules"])
    def test_no_imports_go_round_in_a_circle(self, depth):
        """Late imports count too: what needs one is not below the other."""
        graph = defaultdict(set)
        for name, imported in modules().items():
            short = ".".join(name.split(".")[:depth])
            graph[short] |= {".".join(each.split(".")[:depth]) for each in imported} - {short}
        TopologicalSorter(graph).prepare()  # CycleError names the circle

    def test_only_the_ways_in_import_the_command_line(self):
        users = {part for part, modules in imports().items() if any(m.startswith("fnostab.cli") for m in modules)}
        assert users <= {"__main__", "cli", "ptychography"}  # whose commands use the options of all
        assert not any(m.startswith("entrypoints") for modules in imports().values() for m in modules)

    def test_the_engine_knows_its_tasks_by_name_alone(self):
        parts = imports()
        users = {part for part, modules in parts.items() if any(m.startswith("fnostab.ptychography") for m in modules)}
        assert users == {"ptychography"}

    def test_no_word_of_a_task_stands_in_the_engine(self):
        found = []
        for path in [*ROOT.joinpath("fnostab").rglob("*.py"), *ROOT.joinpath("fnostab").rglob("*.j2")]:
            place = path.relative_to(ROOT / "fnostab")
            if place.parts[0] == "ptychography" or place == Path("tasks/registry.py"):
                continue
            lines = path.read_text().splitlines()
            found += [f"{path.name}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if OF_THE_TASK.search(line)]
        assert found == []

    @pytest.mark.parametrize(("library", "parts"), ONLY_IN.items())
    def test_a_library_stays_where_it_belongs(self, library, parts):
        users = {part for part, modules in imports().items() if library in {m.split(".")[0] for m in modules}}
        assert users <= parts

    def test_a_verdict_needs_neither_torch_nor_mlflow(self):
        code = (
            "import sys, fnostab.stats.proportions, fnostab.decision, fnostab.record.table\n"
            "print(*({'torch', 'mlflow', 'lightning', 'matplotlib', 'rich', 'click'} & sys.modules.keys()))"
        )
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        assert answer.stdout.split() == []

    @pytest.mark.slow
    def test_an_import_changes_nothing_in_the_process(self, clean):
        """Other libraries are imported before: what they change is theirs."""
        libraries = {*ONLY_IN, "lightning.pytorch", "mlflow.pytorch", "skimage.metrics", "torch.nn.attention"}
        said = json.loads(clean(ROOT / "tests" / "process_state.py", *sorted(libraries)))
        assert said.pop("modules") > 200
        assert said == {"patience": [7, 120], "changed": []}  # MLflow's own

    @pytest.mark.slow
    def test_mlflow_is_imported_late_and_without_its_telemetry(self, clean):
        folder = ROOT / "fnostab" / "tracking"
        parts = {path.stem for path in folder.iterdir()} - {"__init__", "__pycache__", "environment"}
        answer = clean(
            "-c",
            "import os, sys, fnostab.tracking\n"
            "print('mlflow' in sys.modules, flush=True)\n"
            "import fastapi, lightning, pandas, requests, sqlalchemy, torch\n"  # once, what takes most of the time
            "for part in sys.argv[1:]:\n"
            "    if os.fork() == 0:\n"
            "        __import__(f'fnostab.tracking.{part}')\n"
            "        from mlflow.telemetry import get_telemetry_client\n"
            "        print(get_telemetry_client(), 'MLFLOW_DISABLE_TELEMETRY' in os.environ, flush=True)\n"
            "        os._exit(0)\n"
            "    os.wait()\n",
            *parts,
        )
        assert answer.splitlines() == ["False", *["None False"] * len(parts)]


class TestDependencies:
    def test_what_is_imported_is_what_is_declared(self, pyproject):
        declared = {canonicalize_name(Requirement(line).name) for line in pyproject["project"]["dependencies"]}
        modules = {m.split(".")[0] for found in imports().values() for m in found}
        foreign = modules - sys.stdlib_module_names - {"fnostab"} - {MODULE_OF.get(name, name) for name in EXTRA}
        assert {COMES_WITH.get(name, name) for name in foreign} == {MODULE_OF.get(name, name) for name in declared}

    @pytest.mark.parametrize(("library", "extra"), EXTRA.items())
    def test_what_only_some_need_is_an_extra(self, pyproject, library, extra):
        assert library in {Requirement(line).name for line in pyproject["project"]["optional-dependencies"][extra]}

    def test_a_project_environment_holds_what_the_package_needs(self, pyproject):
        project = pyproject["project"]
        lines = [*project["dependencies"], *project["optional-dependencies"]["torch"]]
        needed = sorted(canonicalize_name(Requirement(line).name) for line in lines)
        assert sorted(canonicalize_name(r.name) for r in requirements("requirements.txt")) == needed
        assert "-c constraints.txt" in (ROOT / "requirements.txt").read_text().splitlines()
        assert not any(r.specifier for r in requirements("requirements.txt"))  # pyproject.toml has the versions

    def test_each_dependency_has_one_tested_version_that_is_accepted(self, pyproject):
        project = pyproject["project"]
        pins = {canonicalize_name(r.name): r.specifier for r in requirements("constraints.txt")}
        extras = [line for lines in project["optional-dependencies"].values() for line in lines]
        used = set()
        for line in [*project["dependencies"], *extras]:
            needed = Requirement(line)
            if needed.name == "fnostab":  # an extra that takes in others
                continue
            (pin,) = pins[canonicalize_name(needed.name)]
            used.add(canonicalize_name(needed.name))
            assert pin.operator == "=="
            assert needed.specifier.contains(pin.version), f"{line}, but constraints.txt has {pin.version}"
        assert pins.keys() == used, "constraints.txt holds what nothing needs"

    def test_conda_and_pyenv_install_the_same_list(self, pyproject):
        conda = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
        (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
        assert pip == ["-r requirements.txt", "-e ."]
        assert f"python{pyproject['project']['requires-python']}" in conda
        assert yaml.safe_load((ROOT / "python_env.yaml").read_text()) == {"dependencies": ["-r requirements.txt"]}


class TestMLproject:
    @pytest.fixture(scope="class")
    def project(self):
        return yaml.safe_load((ROOT / "MLproject").read_text())

    def test_it_has_the_entry_points_of_the_documentation(self, project):
        assert project["python_env"] == "python_env.yaml"
        assert {"shootout", "strategy", "train", "decide", "activations", "main"} == project["entry_points"].keys()

    @pytest.mark.parametrize("name", ["shootout", "strategy", "train", "decide", "activations"])
    def test_an_entry_point_starts_a_command_with_options_that_it_has(self, project, name):
        entry = project["entry_points"][name]
        python, flag, module, *arguments = entry["command"].split()
        assert (python, flag, module) == ("python", "-m", f"entrypoints.{name}")
        source = ROOT / "entrypoints" / f"{name}.py"
        (called,) = re.findall(r'main\(\["(\w+)"', source.read_text())
        command = group.get_command(None, called)
        options = {option for parameter in command.params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= options
        assert set(re.findall(r"{(\w+)}", entry["command"])) == entry["parameters"].keys()

    def test_the_shootout_takes_what_its_users_are_told_to_pass(self, project):
        parameters = project["entry_points"]["shootout"]["parameters"]
        assert {"study", "seeds", "arms", "profile", "epochs", "jobs", "launcher", "cluster"} == parameters.keys()
        assert parameters["study"]["default"] == "stage_a"


@pytest.fixture(scope="module")
def tracked():
    """Files that git holds, or would."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git repository")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_says_where_packages_come_from(tracked):
    """That is the machine's to say: a mirror works without a change here."""
    hosts = [
        ".".join(parts)
        for parts in (
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("anaconda", "org"),
            ("anaconda", "com"),
            ("download", "pytorch", "org"),
            ("npmjs", "org"),
        )
    ]
    for path in tracked:
        text = path.read_text(errors="ignore")
        assert not [host for host in hosts if host in text], path
        if path.name != Path(__file__).name:
            assert "index-url" not in text, path


@pytest.mark.parametrize(
    "path",
    [
        "outputs/stage_a/5eed/control-0/journal.jsonl",
        "mlflow.db",
        "mlflow.db-journal",
        "mlflow.db-wal",
        "mlruns/1/abc/artifacts/best.safetensors",
        "mlartifacts/1/x",
        ".venv/bin/python",
        "fnostab.egg-info/PKG-INFO",
        "fnostab/__pycache__/errors.cpython-311.pyc",
    ],
)
def test_git_leaves_out_what_a_run_writes(tracked, path):
    answer = subprocess.run(["git", "check-ignore", "--no-index", "--quiet", path], cwd=ROOT, check=False)
    assert answer.returncode == 0


def test_a_docstring_is_a_plain_statement():
    for path in ROOT.glob("fnostab/**/*.py"):
        named = (each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, NAMED))
        texts = {each.name: ast.get_docstring(each) or "" for each in named}
        assert {name: text for name, text in texts.items() if QUESTION.match(text)} == {}, path


def test_a_module_docstring_says_what_is_in_the_file():
    """An imperative or a noun phrase: "Ask Slurm for ...", not "What Slurm says of ..."."""
    rooms = ("fnostab", "entrypoints", "benchmarks", "tests")
    paths = {path for room in rooms for path in (ROOT / room).rglob("*.py")} - set((ROOT / "tests/same_as").iterdir())
    first = {path.relative_to(ROOT): ast.get_docstring(ast.parse(path.read_text())) or "" for path in paths}
    assert [str(name) for name, text in first.items() if text.startswith("What")] == []
    assert [str(name) for name, text in first.items() if name.parts[0] == "fnostab" and not text] == []
