"""``fnostab plan``: compute the number of seeds that a study needs."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from fnostab.cli.options import parse_looks
from fnostab.cli.printing import echo
from fnostab.errors import ConfigError
from fnostab.record.plurals import counted
from fnostab.show.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_SEEDS = 200
RATES = (0.2, 0.3, 0.4, 0.5, 0.6)  # of control, in the table around the answer
POWERS = (0.7, 0.8, 0.9)
RATIO, MARGIN = 1.0, 0.1  # of losses, arm to control, and how much higher counts as no worse
TOOTH = 10  # seeds beyond the answer that are checked for a dip of the power


@click.command("plan", epilog="Example: fnostab plan --control-rate 0.4 --arm-rate 0.05")
@click.option("--control-rate", default=0.3, show_default=True, help="Failure rate of control.")
@click.option("--arm-rate", default=0.0, show_default=True, help="Expected failure rate of the arm.")
@click.option("--power", default=0.8, show_default=True, help="Wanted probability of a significant result.")
@click.option("--alpha", default=0.05, show_default=True, help="One-sided level.")
@click.option("--candidates", default=1, show_default=True, help="Arms compared with one control (Holm).")
@click.option("--looks", metavar="LIST", help="Seeds per arm at each look of a sequential study, as in 10,20.")
@click.option("--log-sd", type=float, help="For losses: standard deviation of the natural log of the loss over seeds.")
@click.option("--ratio", default=RATIO, show_default=True, help="For losses: true ratio, arm to control.")
@click.option(
    "--margin",
    type=click.FloatRange(min=0),
    default=MARGIN,
    show_default=True,
    help="For losses: how much higher still counts as no worse, as in a study; 0 asks for a lower loss.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(
    control_rate: float,
    arm_rate: float,
    power: float,
    alpha: float,
    candidates: int,
    looks: str | None,
    log_sd: float | None,
    ratio: float,
    margin: float,
    as_json: bool,
) -> None:
    """Compute, before a study is run, how many seeds per arm it needs to show an effect.

    Failure rates are planned exactly for one-sided Boschloo, losses by Noether's formula for Mann-Whitney. A ratio
    of 1 with a margin of 0.1 plans for `loss_within_margin`, a ratio of 0.8 with a margin of 0 for `better_loss`.
    """
    if log_sd is None and (ratio, margin) != (RATIO, MARGIN):
        raise ConfigError("--ratio and --margin are about losses: give their spread as well, as in --log-sd 0.3")
    answer = _rates(control_rate, arm_rate, power, alpha, candidates)
    if log_sd is not None:
        from fnostab.stats.design import seeds_for_loss_ratio

        n = seeds_for_loss_ratio(log_sd, ratio, margin=1 + margin, power=power, alpha=alpha, candidates=candidates)
        rate = max(control_rate, arm_rate)
        all_seeds = None if n is None or rate >= 1 else math.ceil(n / (1 - rate))
        answer["losses"] = {
            "log_sd": log_sd,
            "ratio": ratio,
            "margin": margin,
            "successful_seeds": n,
            "seeds": all_seeds,
        }
    if looks:
        answer["sequential"] = _sequential(parse_looks(looks), alpha, candidates, control_rate, arm_rate)
    if as_json:
        echo(json.dumps(answer, indent=2))
    else:
        _print(answer, Console())


def _rates(control_rate: float, arm_rate: float, power: float, alpha: float, candidates: int) -> dict[str, Any]:
    """Plan for failure rates, JSON-ready.

    Raises:
        ConfigError: an argument is out of range.
    """
    from fnostab.stats.design import boschloo_power, seeds_for_rates

    def seeds(rate: float, power: float) -> int | None:
        rates = {"control_rate": rate, "arm_rate": arm_rate}
        return seeds_for_rates(**rates, power=power, alpha=alpha, candidates=candidates, limit=MOST_SEEDS)

    n = seeds(control_rate, power)
    level = alpha / candidates

    def power_at(seeds: int) -> float:
        return boschloo_power(control_rate, arm_rate, seeds, level)

    return {
        "control_rate": control_rate,
        "arm_rate": arm_rate,
        "power": power,
        "alpha": alpha,
        "candidates": candidates,
        "seeds": n,
        "power_at_seeds": None if n is None else power_at(n),
        "dips": [] if n is None else [m for m in range(n + 1, n + 1 + TOOTH) if power_at(m) < power],
        "table": [
            {"control_rate": rate, "seeds": {f"{p:g}": seeds(rate, p) for p in sorted({*POWERS, power})}}
            for rate in sorted({*RATES, control_rate})
            if rate > arm_rate
        ],
    }


def _sequential(
    looks: Sequence[int], alpha: float, candidates: int, control_rate: float, arm_rate: float
) -> dict[str, Any]:
    from fnostab.decision.sequential import look_alpha
    from fnostab.stats.sequential import sequential_error_and_power

    per_look = look_alpha(looks, alpha, candidates)
    design = sequential_error_and_power(looks, per_look / candidates, control_rate, arm_rate, futility=True)
    return {
        "looks": list(looks),
        "alpha_at_look": per_look,
        "error": design.error,
        "error_at_rate": design.error_rate,
        "power": design.power,
        "rejected_at_look": list(design.rejected_at_look),
        "futile_at_look": list(design.futile_at_look),
        "expected_seeds": design.expected_seeds,
    }


def _print(answer: dict[str, Any], console: Console) -> None:
    console.print("\n".join(_lines(answer)), highlight=False)
    if answer["table"]:
        console.print()
        console.print(_table(answer))


def _lines(answer: dict[str, Any]) -> Iterable[str]:
    rates = f"a failure rate of {answer['arm_rate']:g} where control's is {answer['control_rate']:g}"
    n, candidates = answer["seeds"], answer["candidates"]
    of = "one candidate" if candidates == 1 else f"{candidates} candidates (Holm)"
    if n is None and answer["arm_rate"] >= answer["control_rate"]:
        yield f"no number of seeds shows {rates}: it is no lower"
    elif n is None:
        yield f"more than {MOST_SEEDS} seeds per arm show {rates} with power {answer['power']:g}"
    else:
        yield f"{n} seeds per arm show {rates} with power {answer['power_at_seeds']:.3f}: {of}, {_level(answer)}"
        if answer["dips"]:
            dips = ", ".join(map(str, answer["dips"]))
            yield f"power rises in a saw-tooth, because failures are whole numbers: at {dips} seeds it drops again"
        else:
            yield "power rises in a saw-tooth, because failures are whole numbers: one more seed may lower it slightly"
    if "losses" in answer:
        yield _loss_line(answer)
    if "sequential" in answer:
        yield from _sequential_lines(answer["sequential"])


def _level(answer: dict[str, Any]) -> str:
    return f"one-sided Boschloo at {answer['alpha'] / answer['candidates']:g}"


def _loss_line(answer: dict[str, Any]) -> str:
    losses = answer["losses"]
    limit = f"at most {100 * losses['margin']:g} % above" if losses["margin"] else "below"
    what = f"a loss {limit} control's if the true ratio is {losses['ratio']:g}"
    if losses["successful_seeds"] is None:
        return f"no number of seeds shows {what}"
    shown_by = counted(losses["successful_seeds"], "successful trial per arm shows", "successful trials per arm show")
    line = f"{shown_by} {what}"
    rate = max(answer["control_rate"], answer["arm_rate"])
    if losses["seeds"] is None or not rate:
        return line
    return f"{line}: {counted(losses['seeds'], 'seed')} if {rate:g} of them fail"


def _sequential_lines(design: dict[str, Any]) -> Iterable[str]:
    looks = design["looks"]
    after = ", ".join(map(str, looks))
    seeds = "seed" if looks == [1] else "seeds"
    yield f"looks after {after} {seeds} per arm, each at alpha {design['alpha_at_look']:.5f} before Holm:"
    error = f"{design['error']:.4f} for a candidate (where both fail at {design['error_at_rate']:.2f})"
    yield f"  type I error over all looks at most {error}, exact"
    found = ", ".join(f"{share:.3f} at {n}" for share, n in zip(design["rejected_at_look"], looks, strict=True))
    given_up = ", ".join(f"{share:.3f} at {n}" for share, n in zip(design["futile_at_look"], looks[:-1], strict=False))
    yield f"  power {design['power']:.3f}: {found} {seeds}; stopped for futility: {given_up or 'never'}"
    yield f"  on average {design['expected_seeds']:.1f} seeds per arm"


def _table(answer: dict[str, Any]) -> Table:
    title = f"seeds per arm against an arm that fails at {answer['arm_rate']:g} ({_level(answer)})"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    powers = list(answer["table"][0]["seeds"])
    for name in ("control fails at", *(f"power {power}" for power in powers)):
        table.add_column(name, justify="right", no_wrap=True)
    for row in answer["table"]:
        seeds = [str(row["seeds"][power] or f"> {MOST_SEEDS}") for power in powers]
        table.add_row(f"{row['control_rate']:g}", *seeds)
    return table
