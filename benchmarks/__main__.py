"""Run the benchmarks one after the other, and print times and their ratios.

    python -m benchmarks --quick                              # less than ten minutes on two cores
    python -m benchmarks --json performance.json --markdown docs/performance.md
    python -m benchmarks --only step,clipping

They use a GPU if torch finds one. Benchmarks that the machine does not support are listed as skipped. CPU times are
processor times of one thread, which exclude other processes; still, nothing else should run.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.timing import collect, table, write_section

# Modules with a function `measure`, in order of execution.
SUBJECTS = (
    "step",
    "subnormals",
    "clipping",
    "recording",
    "journal",
    "data",
    "seeds",
    "start",
    "reading",
    "foreign",
)
PACKAGES = ("torch", "lightning", "mlflow", "numpy", "neuraloperator")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # as in trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Fewer sizes and rounds.")
    parser.add_argument("--only", default=",".join(SUBJECTS), help="Of them: %(default)s.")
    parser.add_argument("--json", type=Path, help="Write rows and machine into this file.")
    parser.add_argument("--markdown", type=Path, help="Put tables and machine into this file.")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(SUBJECTS):
        parser.error(f"--only: {', '.join(sorted(unknown))} is not known; accepted: {', '.join(SUBJECTS)}")
    os.environ |= ONE_THREAD
    command = "python -m benchmarks" + " --quick" * options.quick
    command += f" --only {options.only}" * (names != list(SUBJECTS))
    about, rows, failed = machine(command), {}, []
    for name in names:
        started = time.monotonic()
        try:
            rows[name] = collect(f"benchmarks.{name}", quick=options.quick)
        except (Exception, SystemExit) as error:  # the other benchmarks still run
            failed.append(name)
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        print(f"{name} ({time.monotonic() - started:.0f} s)\n\n{table(rows[name])}\n", flush=True)
        if options.json:
            options.json.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")
        if options.markdown:
            text = f"{said(about)}\n\n{table(rows[name])}"
            write_section(options.markdown, name, text, "python -m benchmarks")
    sys.exit(1 if failed else 0)


def machine(command: str) -> dict[str, object]:
    """Describe the machine and the versions of packages."""
    import torch

    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": sys.version.split()[0],
        "packages": {name: installed for name in PACKAGES if (installed := version_of(name))},
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "command": command,
    }


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def said(about: dict[str, object]) -> str:
    """Format the command, machine and versions as Markdown."""
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    memory = f"{about['memory_bytes'] / 1e9:.0f} GB"
    where = f"{about['cpu']}, {about['cores']} cores, {memory}, {about['gpu'] or 'no GPU'}"
    what = f"Python {about['python']}, {packages}; commit {about['commit']}"
    return f"`{about['command']}` on {about['date'][:10]}: {where}; {what}."


if __name__ == "__main__":
    main()
