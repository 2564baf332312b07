"""Shared parts of the benchmarks: alternating timings, separate processes, result rows, Markdown tables and sections.

The result of a benchmark is a list of rows:

    what      the measured work, such as "step of hybrid, 4 blocks"
    variant   the variant, such as "monitor"
    value     the median; None if it could not be measured, with the reason in ``variant``
    unit      unit of the value
    ratio     value relative to that of another variant in the same run; None for the reference variant
    of        the reference variant of the ratio
"""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

Row = dict[str, Any]
KEYS = ("what", "variant", "value", "unit", "ratio", "of")


def row(what: str, variant: str, value: float | None, unit: str, ratio: float | None = None, of: str = "") -> Row:
    return dict(zip(KEYS, (what, variant, value, unit, ratio, of), strict=True))


def skipped(what: str, why: str) -> Row:
    """Row for a measurement that this machine does not support."""
    return row(what, f"skipped: {why}", None, "")


def compared(what: str, values: Mapping[str, float], unit: str, of: str | None = None) -> list[Row]:
    """Rows for all variants, with ratios to the variant ``of``, by default the first."""
    of = next(iter(values)) if of is None else of
    return [
        row(what, variant, value, unit, *(() if variant == of else (value / values[of], of)))
        for variant, value in values.items()
    ]


def clock(device: str = "cpu") -> float:
    """Processor time of this process in seconds; for a GPU wall time after synchronising."""
    if device == "cpu":
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def in_turns(
    works: Mapping[str, Callable[[], object]], rounds: int, *, device: str = "cpu", warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each function in each round; a round calls all functions, so that disturbances affect all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(warm_up + rounds):
        for name, work in works.items():
            started = clock(device)
            work()
            if number >= warm_up:
                times[name].append(clock(device) - started)
    return times


def medians(times: Mapping[str, Sequence[float]], scale: float = 1e3) -> dict[str, float]:
    """Median of each, by default in milliseconds."""
    return {name: median(found) * scale for name, found in times.items()}


def own_process(prepare: Callable[..., None] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """Executor with one new process, and thus its own memory allocator; ``prepare`` is called at its start."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=prepare, initargs=arguments)


def collect(module: str, *, quick: bool) -> list[Row]:
    """Run a module's ``measure`` in a separate process; return its rows.

    Raises:
        ValueError: a row does not have the keys described above.
    """
    with own_process() as process:
        rows = process.submit(_measure, module, quick).result()
    for one in rows:
        if tuple(one) != KEYS:
            raise ValueError(f"{module} gives a row with {', '.join(one)}: expected {', '.join(KEYS)}")
    return rows


def _measure(module: str, quick: bool) -> list[Row]:
    return list(import_module(module).measure(quick))


def resident(field: str) -> int:
    """Memory of this process in bytes: VmRSS at present, VmHWM the peak. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def restart_peak() -> None:
    """Reset the peak memory VmHWM of this process."""
    Path("/proc/self/clear_refs").write_text("5")


def table(rows: Iterable[Row]) -> str:
    """Format rows as a Markdown table."""
    lines = ["| what | variant | median | ratio | to |", "|---|---|--:|--:|---|"]
    for one in rows:
        value = "" if one["value"] is None else f"{_number(one['value'])} {one['unit']}"
        ratio = "" if one["ratio"] is None else _ratio(one["ratio"])
        lines.append(f"| {one['what']} | {one['variant']} | {value} | {ratio} | {one['of']} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    """Format a number with three significant digits, or as an integer from 100."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _ratio(value: float) -> str:
    return f"x {_number(value)}" if value >= 0.1 else f"{value:.2%}"


def write_section(path: Path, section: str, text: str, maker: str) -> None:
    """Replace the text between the two marks of a section in a file."""
    begin, end = f"<!-- {section}: made by {maker} -->", f"<!-- end of {section} -->"
    old = path.read_text()
    before, _, rest = old.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{path} has no section between {begin} and {end}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")
