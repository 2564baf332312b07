"""The documentation: it is built without a warning, no link of it is broken, and what it shows is run.

Every block of commands in README.md and docs/*.md is run as it stands, in one copy of the working tree, page after
page, but for what SMALLER replaces. `<!-- not run: reason -->` before a block leaves it out, in sight of the reader
of the source. Files that a page shows (a block with a title) are written into that copy first. Before an answer that
a page shows, `<!-- printed by: command -->` names a command that prints it again from the trials in results/, or
`<!-- recorded in: file -->` what docs/make_pictures.py recorded of a command that takes longer.
"""

import csv
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
import yaml
from tiny import TINY

import fnostab
from docs.make_pictures import PRINTED
from fnostab.cli import COMMANDS, group
from fnostab.ptychography.settings import TrialConfig
from fnostab.record.settings import flatten

ROOT = Path(__file__).parent.parent
FIRST = ["README.md", "docs/index.md", "docs/tour.md"]  # they make what the others look at
PAGES = FIRST + sorted({f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - set(FIRST))
SHELLS = {"bash", "console", "sh", "shell"}
PROGRAMS = {
    "conda",
    "export",
    "fnostab",
    "git",
    "make",
    "mlflow",
    "mkdocs",
    "pip",
    "pytest",
    "python",
    "sbatch",
    "source",
}
STATE = ("cd ", "export ", "source ")  # commands that the later ones of a block need
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
PRINTED_BY = re.compile(r"<!-- printed by: fnostab (.+?) -->")
RECORDED_IN = re.compile(r"<!-- recorded in: (\S+) -->")
FILLED = re.compile(r"<!-- (\w+) -->")  # by docs/make_measured.py
ANSWER = re.compile(r"[\w-]+: (undecided|does not help), |(leaning )?(GOLD|SILVER|PIVOT|INCONCLUSIVE)\b.*: ")
LEFT_OUT = "..."  # a line of a block in the place of what is printed there
STATUS = re.compile(r"#.*\bexit status (\d+)")
TIMEOUT_S = 600  # machines are shared: seconds that a command takes alone can be minutes

SMALL = {name: v for name, v in TINY.items() if name != "model.fno_blocks"} | {"training.epochs": 1}  # of commands
SMALLER = [  # what a command is run as: (pattern, what takes its place)
    (r"--seeds[ =]([\d,]+|\$\(seq[^)]*\))", "--seeds 1"),
    (r"-P seeds=[\d,]+", "-P seeds=1"),
    (r"--epochs[ =]\d+", ""),
    (r"training\.epochs=\d+", "training.epochs=1"),
    (r"fnostab run (clip_sweep|layerscale|crash_hunt)\S*", r"\g<0> --seeds 1"),
    (r"in \(100, 101, 102\):", "in (100,):"),  # the seeds of the noise, and how much of it
    (r"\(100_000\)", "(1000)"),
    (r"\(2000, 32\)", "(20, 32)"),
    (r"pytest .*", r"\g<0> --collect-only --quiet"),  # they are run as tests
    (r"python -m benchmarks(\.\w+)?", r"\g<0> --help"),
    (r"fnostab replay \S+", "fnostab replay {failed}"),  # of a trial that fails for certain
    (r"fnostab serve", r"\g<0> --port 0"),
]
SMALLER_FILES = [('profile="small")', f'profile="small", overrides={SMALL})'), ("seeds=range(10)", "seeds=range(1)")]
LONG = re.compile(r"\b(run|train|activations|ui|serve|replay)\b")  # not again on the other pages that show it
MAKES = {"run"}  # targets whose recipe is run; of the others it is only seen that make knows them


@dataclass
class Block:
    """A block of code in a page."""

    where: str  # page:line
    language: str
    title: str | None
    lines: list[str]
    not_run: str | None
    printed_by: str | None = None  # arguments of fnostab
    recorded_in: str | None = None
    filled: bool = False

    @property
    def is_shell(self):
        return self.language in SHELLS or (not self.language and first_word(self.lines[0]) in PROGRAMS)


def first_word(line):
    return (line.split() or [""])[0]


def blocks(page):
    """Every block of code of a page, fenced or indented."""
    lines = (ROOT / page).read_text().splitlines()
    found, i = [], 0
    while i < len(lines):
        start, language, title = i, "", None
        if fence := re.match(r"```(\w*)(?: title=\"([^\"]+)\")?\s*$", lines[i]):
            language, title = fence[1], fence[2]
            end = next(j for j in range(i + 1, len(lines)) if lines[j].startswith("```"))
            code, i = lines[start + 1 : end], end + 1
        elif lines[i].startswith("    ") and (i == 0 or not lines[i - 1].strip()):
            while i < len(lines) and (lines[i].startswith("    ") or not lines[i].strip()):
                i += 1
            code = [line[4:] for line in lines[start:i]]
        else:
            i += 1
            continue
        before = next((line for line in reversed(lines[:start]) if line.strip()), "")
        reason, printed, recorded = (mark.search(before) for mark in (NOT_RUN, PRINTED_BY, RECORDED_IN))
        said = [match and match[1] for match in (reason, printed, recorded)]
        found.append(Block(f"{page}:{start + 1}", language, title, code or [""], *said, bool(FILLED.search(before))))
    return found


def commands(block):
    """The commands of a block: joined where they go over several lines, without prompts and what they print."""
    lines = block.lines
    if any(line.startswith("$ ") for line in lines):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    found, waiting, end = [], [], None
    for line in lines:
        waiting.append(line)
        if end is None and (here := re.search(r"<<-?\s*'?(\w+)'?", line)):
            end = here[1]
        elif line.strip() == end:
            end = None
        if end is None and not line.endswith("\\"):
            command = "\n".join(waiting)
            waiting = []
            if command.strip() and not command.lstrip().startswith("#"):
                found.append(command)
    assert not waiting, f"{block.where}: a command has no end"
    return found


def written_blocks():
    return [block for page in PAGES for block in blocks(page)]


class TestPages:
    def test_a_block_that_shows_a_command_is_one_that_is_run(self):
        for block in written_blocks():
            if not block.is_shell and block.language != "text":
                shown = [line for line in block.lines if re.match(r"(\$ )?(fnostab|mlflow run|make) ", line)]
                assert not shown, f"{block.where}: mark it as bash, or as text if it is what a command prints"

    def test_code_in_python_stands_in_a_file_that_is_run_or_says_why_not(self):
        text = "\n".join((ROOT / page).read_text() for page in PAGES)
        for block in written_blocks():
            if block.language == "python" and not block.not_run:
                assert block.title, f"{block.where}: give it a title, or say `<!-- not run: why -->`"
                used = f"python {block.title}" in text or f"{Path(block.title).stem}." in text
                assert used, f"{block.where}: no page uses {block.title}"

    def test_the_study_that_is_shown_is_the_built_in_one(self):
        (shown,) = (block for block in blocks("docs/studies.md") if (block.language, block.title) == ("yaml", None))
        built_in = yaml.safe_load((ROOT / "fnostab/ptychography/studies/stage_a.yaml").read_text())
        assert yaml.safe_load("\n".join(shown.lines)) | {"description": built_in["description"]} == built_in

    @pytest.mark.parametrize("page", PAGES)
    def test_a_command_within_a_sentence_exists(self, page):
        context = click.Context(group)
        for shown in re.findall(r"`fnostab ([^`\n]+)`", (ROOT / page).read_text()):
            name, *arguments = shown.split()
            if name.startswith("-"):
                continue
            command = group.get_command(context, name)
            if isinstance(command, click.Group) and arguments:
                command = command.get_command(context, arguments.pop(0))
            assert command, f"{page}: fnostab {shown}"
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            for argument in arguments:
                option = argument.partition("=")[0]
                assert not option.startswith("--") or "." in option or option in known, f"{page}: fnostab {shown}"

    @pytest.mark.parametrize("page", ["README.md"])
    def test_a_link_of_the_readme_leads_to_a_file(self, page):
        for target in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text()):
            assert target.startswith("http") or (ROOT / target).exists(), target

    @pytest.mark.parametrize("page", PAGES)
    def test_a_test_that_a_page_names_exists(self, page):
        text = (ROOT / page).read_text()
        for name, test in re.findall(r"(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::(\w+))?", text):
            path = ROOT / "tests" / name
            assert path.is_file(), f"{page}: {name}"
            assert not test or re.search(rf"(def|class) {test}\b", path.read_text()), f"{page}: {name}::{test}"
        for folder in re.findall(r"pytest (tests/[\w/]+)[ `]", text):
            assert (ROOT / folder).is_dir(), f"{page}: {folder}"


def compare(block, text):
    """Each part of a block stands in a text, in that order."""
    rest = text
    for part in re.split(rf"^{re.escape(LEFT_OUT)}\n", "\n".join([*block.lines, ""]), flags=re.MULTILINE):
        _, found, rest = rest.partition(part.rstrip() + "\n")
        assert found, f"{block.where}: not printed (any more):\n{part}\nbut\n{text}"


class TestSamples:
    def test_an_answer_that_is_shown_is_printed_today(self, environment):
        shown = [block for block in written_blocks() if block.printed_by]
        assert shown
        printed = {}
        for block in shown:
            if block.printed_by not in printed:
                command = [sys.executable, "-m", "fnostab", *block.printed_by.split()]
                wide = environment | {"COLUMNS": "80"}
                out = subprocess.run(command, cwd=ROOT, env=wide, capture_output=True, text=True, check=True).stdout
                printed[block.printed_by] = "".join(f"{line.rstrip()}\n" for line in out.splitlines())
            compare(block, printed[block.printed_by])

    def test_a_sample_that_is_shown_is_recorded(self):
        shown = [block for block in written_blocks() if block.recorded_in]
        assert {block.recorded_in for block in shown} == {f"results/samples/{name}.txt" for name in PRINTED}
        for block in shown:
            text = (ROOT / block.recorded_in).read_text()
            assert text.startswith(f"$ fnostab {PRINTED[Path(block.recorded_in).stem]}\n")
            compare(block, text)

    def test_each_output_that_is_shown_says_what_prints_it(self):
        for block in written_blocks():
            output = block.language == "text" or not (block.language or block.is_shell)
            if output or any(ANSWER.match(line) for line in block.lines):
                said = block.printed_by or block.recorded_in or block.filled or block.not_run
                assert said, f"{block.where}: say `<!-- printed by: fnostab ... -->`, or `<!-- recorded in: ... -->`"

    def test_counts_before_and_after_are_those_of_the_recorded_trials(self):
        """docs/outcomes.md's table, and docs/studies.md's numbers of the small profile."""
        with (ROOT / "results/question/successes.csv").open() as file:
            trials = list(csv.DictReader(file))
        rows = (ROOT / "docs/outcomes.md").read_text().partition("| trials | arm | before | after |")[2]
        of = defaultdict(list)
        for trial in trials:
            of[trial["learning_rate"], trial["epochs"], trial["arm"]].append(trial)
        for arm_trials in of.values():
            ends = [[trial[when] != "converged" for trial in arm_trials] for when in ("without_details", "outcome")]
            counts = " | ".join(f"{sum(failed)} of {len(failed)}" for failed in ends)
            assert f"| `{arm_trials[0]['arm']}` | {counts} |" in rows
        seen = [float(trial["ssim_amp"]) for trial in of["0.015", "16", "control"] if trial["outcome"] == "converged"]
        median, lowest = f"a median amplitude SSIM of {statistics.median(seen):.2f}", f"the lowest {min(seen):.2f}"
        page = (ROOT / "docs/studies.md").read_text()
        assert median in page
        assert lowest in page

    def test_the_answer_on_the_measured_scan_is_of_the_trials_in_its_table(self):
        """docs/measured.md, whose journals are not kept: docs/make_measured.py writes its table and its answer."""
        page = (ROOT / "docs/measured.md").read_text()
        rows = page.partition("<!-- trials -->")[2].partition("<!-- end of trials -->")[0]
        trials = re.findall(r"^\| (\w+)-\d+ \| (\w+) \| ([\d.]+) \| [\d.]+ \| ([\d.]+) \|", rows, re.MULTILINE)
        answer = page.partition("<!-- answer -->")[2]
        for arm in dict.fromkeys(arm for arm, *_ in trials):
            ends = [(end, float(loss)) for name, end, loss, _ in trials if name == arm]
            said = re.search(rf"^{arm} +(\d+)/(\d+) .*?%-\d+% +([\d.]+) ", answer, re.MULTILINE)
            good = [loss for end, loss in ends if end == "converged"]
            assert (int(said[1]), int(said[2])) == (len(ends) - len(good), len(ends))
            assert float(said[3]) == pytest.approx(statistics.median(good), abs=0.00051)  # losses have three decimals
        good = [(float(loss), float(ssim)) for _, end, loss, ssim in trials if end == "converged"]
        median = re.search(r"The median of those that converged is ([\d.]+)\. ", rows)[1]
        assert float(median) == pytest.approx(statistics.median(loss for loss, _ in good), abs=0.0011)
        assert f"on the test area of up to {max(ssim for _, ssim in good):.2f};" in " ".join(page.split())


class Links(HTMLParser):
    """What a page links to and loads, and the names of its places."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.places, self.classes = [], [], set(), set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.places |= {values[name] for name in ("id", "name") if values.get(name)}
        self.classes |= set((values.get("class") or "").split())
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") != "canonical" and values.get("href"):
            self.loads.append(values["href"])
        if tag != "a" and values.get("src"):
            self.loads.append(values["src"])


class TestSite:
    @pytest.fixture(scope="class")
    def site(self, tmp_path_factory, environment):
        """The site, built as `make docs` does."""
        folder = tmp_path_factory.mktemp("site")
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
        quiet = environment | {"NO_MKDOCS_2_WARNING": "1"}
        built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert built.returncode == 0, built.stderr
        return folder

    @pytest.fixture(scope="class")
    def pages(self, site):
        return {path: Links(path) for path in site.rglob("*.html") if path.name != "404.html"}

    def test_no_link_is_broken(self, pages):
        for path, page in pages.items():
            for link in page.links + page.loads:
                parts = urlsplit(link)
                if parts.scheme or parts.netloc or link.startswith("data:"):
                    continue
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                target = target / "index.html" if target.is_dir() else target
                assert target.exists(), f"{path.name}: {link}"
                if parts.fragment and target in pages:
                    assert unquote(parts.fragment) in pages[target].places, f"{path.name}: {link}"

    def test_a_reader_loads_nothing_from_elsewhere(self, site, pages):
        for path, page in pages.items():
            assert not [link for link in page.loads if urlsplit(link).netloc], path
            assert "mermaid" not in page.classes, "its script would be fetched"
        for sheet in site.rglob("*.css"):
            assert not re.search(r"@import|url\([\"']?(https?:)?//", sheet.read_text()), sheet

    def test_every_setting_and_every_command_is_listed(self, site):
        settings = (site / "reference/configuration.html").read_text()
        assert all(f"<code>{name}</code>" in settings for name in flatten(TrialConfig()))
        assert "None" not in settings  # it is null in YAML, and a group of values is a mapping
        listed = (site / "reference/commands.html").read_text()
        assert all(f"<code>fnostab {name}</code>" in listed for name in COMMANDS)
        assert "Sentinel" not in listed

    def test_every_name_of_the_front_door_is_described(self, pages):
        places = {place for page in pages.values() for place in page.places}
        for name in set(dir(fnostab)) - {"__version__"}:
            assert any(re.fullmatch(rf"fnostab(\.\w+)+\.{name}", place) for place in places), name

    def test_code_of_the_tools_is_no_page(self, site):
        assert not list(site.rglob("*.py"))


class Reader:
    """Somebody who types what the pages show, in a copy of the working tree."""

    def __init__(self, folder, environment):
        self.folder = folder
        self.environment = environment | {"PYTHONPATH": str(folder), "NO_MKDOCS_2_WARNING": "1"}
        self.done = set()
        self._failed = None

    def read(self, block):
        state = ""
        for command in commands(block):
            if command.startswith(STATE):
                state += f"{command}\n"
                self.run(state, block.where)
                continue
            expected = STATUS.search(command)
            for smaller in self.smaller(command):
                line = state + smaller.partition(" #")[0].rstrip()
                if line not in self.done or not LONG.search(line):
                    self.run(line, block.where, status=int(expected[1]) if expected else 0)
                    self.done.add(line)

    def smaller(self, command):
        """A command as it is run here; several for one of make."""
        if target := re.match(r"make (\w+)", command):
            dry_run = "make --no-print-directory --just-print --old-file .venv/.installed"
            recipe = self.run(f"{dry_run} {target[1]}", command)
            if target[1] not in MAKES:
                return []
            return [self.smaller(line)[0] for line in commands(Block(command, "bash", None, recipe.splitlines(), None))]
        for pattern, instead in SMALLER:
            if "{failed}" in instead and re.search(pattern, command):
                instead = instead.format(failed=self.failed())
            command = re.sub(pattern, instead, command, count=1)
        if re.search(r"fnostab run (study|well)\.yaml", command):  # of a command, which has settings of its own
            return [command]
        given = {name: value for name, value in SMALL.items() if f"{name}=" not in command}
        if re.search(r"mlflow run .*-e (shootout|strategy|train|activations)", command, re.DOTALL):
            return [self._append(command, "".join(f" -P {name}={value}" for name, value in given.items()))]
        if re.search(r"(fnostab|python -m fnostab) (run|activations|train (?!--trial))", command):
            return [self._append(command, "".join(f" --set {name}={value}" for name, value in given.items()))]
        return [command]

    @staticmethod
    def _append(command, more):
        text, hash_, comment = command.partition(" #")
        return text.rstrip() + more + hash_ + comment

    def failed(self):
        """Folder of a trial that failed."""
        if self._failed is None:
            settings = "".join(f" --set {n}={v}" for n, v in (SMALL | {"training.learning_rate": "1e30"}).items())
            self.run(f"fnostab train stage_a --profile small --experiment failing{settings}", "a failing trial")
            (self._failed,) = self.folder.glob("outputs/failing/*/control-0")
        return self._failed

    def run(self, command, where, status=0):
        if re.search(r"^fnostab (ui|serve)\b(?!.*--help)", command, re.MULTILINE):
            return self._visit(command, where)
        started = self._start(command)
        out, _ = started.communicate(timeout=TIMEOUT_S)
        assert started.returncode == status, f"{where}: {command}\nended with {started.returncode}:\n{out[-3000:]}"
        assert "Traceback" not in out, f"{where}: {command}\n{out[-3000:]}"
        return out

    def _visit(self, command, where):
        """Start a server, see that it answers, end it as Ctrl-C does."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            command = command.replace("--port 0", f"--port {free.getsockname()[1]}")
        *before, last = command.splitlines()
        server = self._start("\n".join([*before, f"exec {last}"]))
        limit = threading.Timer(TIMEOUT_S, server.kill)
        limit.start()
        try:
            printed, address = "", None
            for line in server.stdout:
                printed += line
                if found := re.match(r"(?:tracking server: )?(http://127\.0\.0\.1:\d+)", line):
                    address = found[1]
                if "Ctrl-C stops it" in line:
                    break
            assert address, f"{where}: {command}\n{printed}"
            with urllib.request.urlopen(address, timeout=60) as answer:
                assert answer.status == 200
            server.send_signal(signal.SIGINT)
            rest, _ = server.communicate(timeout=TIMEOUT_S)
            assert server.returncode == 0, f"{where}: {command}\n{printed}{rest}"
        finally:
            limit.cancel()
            if server.poll() is None:
                server.kill()
            server.wait()

    def _start(self, command):
        return subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def reader(tmp_path_factory, environment, empty_database):
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git repository")
    folder = tmp_path_factory.mktemp("reader") / "fnostab"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    shutil.copy(empty_database, folder / "mlflow.db")
    (folder / ".venv").symlink_to(sys.prefix)
    files = defaultdict(list)
    for block in written_blocks():
        if block.title and not block.not_run:
            files[block.title].append("\n".join(block.lines) + "\n")
    for name, (text, *others) in files.items():
        assert not others, f"two pages show a file {name}"
        assert not (folder / name).exists(), f"{name} of a page would take the place of the project's"
        for shown, instead in SMALLER_FILES:
            text = text.replace(shown, instead)
        (folder / name).write_text(text)
    made = Reader(folder, environment)
    made.read(Block("the small study", "bash", None, ["make run"], None))
    return made


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page(page, reader):
    for block in blocks(page):
        if block.is_shell and not block.not_run:
            reader.read(block)
