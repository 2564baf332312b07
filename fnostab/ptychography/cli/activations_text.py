"""Terminal tables of block statistics and of the growth of the mean, for 80 columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING

from rich.table import Table

from fnostab.record import names

if TYPE_CHECKING:
    from fnostab.ptychography.drift import Drift
    from fnostab.ptychography.training.activations import BlockStates

INITIALISATION, TRAINED = "initialisation", "after training"
COLUMNS = {
    names.ACTIVATION_MEAN: "mean",
    names.ACTIVATION_STD: "spread",
    names.DEAD_UNITS: "dead",
    names.SPECTRAL_TO_LOCAL: "spectral/local",
    names.LOW_FREQUENCIES: "low freq.",
}
SHARES = (names.DEAD_UNITS, names.LOW_FREQUENCIES)


def block_table(arm: str, moment: str, seeds: Mapping[int, BlockStates]) -> Table:
    """Table of an arm at one moment with a row per block; for several seeds the medians."""
    several = f", medians of {len(seeds)} seeds" if len(seeds) > 1 else ""
    table = Table(title=f"{arm}, {_when(moment)}{several}", title_justify="left", box=None)
    table.add_column("block")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for block in dict.fromkeys(block for states in seeds.values() for block in states):
        cells = [_median(seeds, block, quantity) for quantity in COLUMNS]
        table.add_row(block, *map(_cell, COLUMNS, cells))
    return table


def _median(seeds: Mapping[int, BlockStates], block: str, quantity: str) -> float | None:
    known = [states[block][quantity] for states in seeds.values() if quantity in states.get(block, {})]
    return median(known) if known else None


def _cell(quantity: str, value: float | None) -> str:
    if value is None:
        return "-"
    if quantity in SHARES:
        return f"{value:.1%}"
    return f"{value:+.3g}" if quantity == names.ACTIVATION_MEAN else f"{value:.3g}"


def drift_table(drifts: Mapping[str, Mapping[str, Drift | None]]) -> Table:
    """Table of the change of the mean from block to block, with the conclusion, for each arm and moment."""
    table = Table(title="Mean against depth", title_justify="left", box=None)
    table.add_column("arm", overflow="fold")
    table.add_column("when", no_wrap=True)
    table.add_column("change per block [95 %]", no_wrap=True)
    table.add_column("rms", no_wrap=True)
    table.add_column("the mean", no_wrap=True)
    for arm, moments in drifts.items():
        for moment, of in moments.items():
            table.add_row(arm, moment, *(_drift_cells(of) if of else ("-", "-", "no two blocks")))
    return table


def _drift_cells(of: Drift) -> tuple[str, str, str]:
    estimate, interval, _ = of.mean
    between = f"[{interval.low:+.2g}, {interval.high:+.2g}]" if interval else "(one seed: no interval)"
    factor = f"x{math.exp(of.log_rms.estimate):.3g}" if of.log_rms else "-"
    return f"{estimate:+.2g} {between}", factor, str(of.growth)


def _when(moment: str) -> str:
    return moment if moment == TRAINED else f"at {moment}"
