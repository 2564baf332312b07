"""Estimate memory and time of each arm before a study starts, and refuse arms that can't fit."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from rich.table import Table

from fnostab.errors import ConfigError, LaunchError
from fnostab.launch.memory import memory_for_trial
from fnostab.ptychography.estimates import Estimate, TrainingSize, network_key
from fnostab.ptychography.settings import TrialConfig
from fnostab.record.plurals import counted
from fnostab.record.settings import flatten
from fnostab.show.rendering import duration
from fnostab.tasks.contract import Call

STEP_COST = "fnostab.ptychography.training.step_cost"  # module that imports torch


class Preflight:
    """Estimates of memory and time for all arms; arms with the same network and batch are measured once.

    Args:
        arms: configurations by arm.
        jobs: number of concurrent trials.
        gpus: number of GPUs they share; 0 for the CPU.
        call: how to call a function that imports torch.

    Attributes:
        estimates: estimates by arm; step times are None until `measure` is called.
        available_bytes: memory for each trial; None if the GPU driver does not report it.
    """

    def __init__(self, arms: Mapping[str, TrialConfig], jobs: int, gpus: int, call: Call) -> None:
        self.jobs = jobs
        self.gpus = gpus
        self._call = call
        self.available_bytes = memory_for_trial(jobs, gpus)
        self.estimates = dict(zip(arms, self._estimates(arms.values()), strict=True))

    def fits(self, estimate: Estimate) -> bool:
        """Whether the memory is sufficient; True if unknown."""
        needed, available = estimate.needed_bytes, self.available_bytes
        return needed is None or available is None or needed <= available

    def insist_on_fit(self) -> None:
        """Check that all arms fit into memory.

        Raises:
            LaunchError: some arms do not fit; the message lists their needs and remedies.
        """
        if refusals := self.refusals():
            raise LaunchError("; ".join(refusals))

    def refusals(self) -> list[str]:
        """Describe each network that does not fit: its arms, the memory needed, and settings that would make it fit."""
        arms: dict[str, list[str]] = {}
        for arm, estimate in self.estimates.items():
            if not self.fits(estimate):
                arms.setdefault(network_key(estimate.config), []).append(arm)
        return [self._refusal(names, self.estimates[names[0]]) for names in arms.values()]

    @property
    def described(self) -> str:
        """Number of networks that `measure` runs, as text."""
        n = len(self.measurable)
        return counted(n, "network")

    @property
    def measurable(self) -> dict[str, TrialConfig]:
        """One configuration for each distinct network that is known to fit."""
        known = (e for e in self.estimates.values() if e.size is not None and self.fits(e))
        return {network_key(estimate.config): estimate.config for estimate in known}

    def measure(self) -> None:
        """Measure the step time of every network that is known to fit."""
        networks = self.measurable
        given = {"configs": list(map(flatten, networks.values())), "gpu": self.gpus > 0}
        times = self._call(f"{STEP_COST}:step_times", given)
        of_network = dict(zip(networks, times, strict=True))
        for arm, estimate in self.estimates.items():
            self.estimates[arm] = replace(estimate, step_s=of_network.get(network_key(estimate.config)))

    def study_s(self, trials: Mapping[str, int]) -> float | None:
        """Duration in seconds of a study with ``trials`` trials per arm; None if unknown for an arm."""
        seconds = {arm: self.estimates[arm].trial_s for arm in trials}
        known = [each for each in seconds.values() if each is not None]
        if len(known) < len(seconds):
            return None
        return max(sum(n * (seconds[arm] or 0.0) for arm, n in trials.items()) / self.jobs, *known)

    def table(self) -> Table:
        """Table with one row per arm; "unknown" if a custom network can't be traced.

        "state" is the size of weights, gradients and optimiser state.
        """
        table = Table(box=None, pad_edge=False)
        columns = ("blocks", "weights", "state", "activations", "in all", "step", "trial")
        table.add_column("arm", no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right")
        for arm, estimate in self.estimates.items():
            size, config = estimate.size, estimate.config
            cells = ["unknown"] * 4
            if size is not None:
                of_bytes = (size.state_bytes, size.activation_bytes, estimate.needed_bytes)
                cells = [_millions(size.parameters), *map(_bytes, of_bytes)]
            step = "unknown" if estimate.step_s is None else _seconds(estimate.step_s)
            trial = "unknown" if estimate.trial_s is None else duration(estimate.trial_s)
            table.add_row(arm, str(config.model.fno_blocks), *cells, step, trial)
        return table

    def summary(self, trials: Mapping[str, int]) -> str:
        """One-line summary of the duration of a study with ``trials`` trials per arm."""
        seconds = self.study_s(trials)
        total = sum(trials.values())
        what = f"{counted(total, 'trial')}, {self.jobs} at a time"
        return f"{what}: {'of unknown time' if seconds is None else f'about {duration(seconds)}'} if none ends early"

    def to_json(self, trials: Mapping[str, int]) -> dict[str, Any]:
        """All estimates as a JSON-serialisable dict."""
        arms = {
            arm: {
                "blocks": estimate.config.model.fno_blocks,
                "batch_size": estimate.config.training.batch_size,
                "size": estimate.size and asdict(estimate.size),
                "snapshot_bytes": estimate.snapshot_bytes,
                "needed_bytes": estimate.needed_bytes,
                "fits": self.fits(estimate),
                "step_s": estimate.step_s,
                "trial_s": estimate.trial_s,
                "trials": trials[arm],
            }
            for arm, estimate in self.estimates.items()
        }
        return {
            "jobs": self.jobs,
            "available_bytes": self.available_bytes,
            "study_s": self.study_s(trials),
            "refusals": self.refusals(),
            "arms": arms,
        }

    def _refusal(self, arms: Sequence[str], estimate: Estimate) -> str:
        one = len(arms) == 1
        return (
            f"arm{'' if one else 's'} {', '.join(arms)} need{'s' if one else ''} {_bytes(estimate.needed_bytes)}"
            f", only {_bytes(self.available_bytes)} available"
            f"{f' for each of {self.jobs} trials side by side' if self.jobs > 1 else ''}: "
            + (", ".join(self._remedies(estimate)) or "no setting that was tried makes it fit: lower model.fno_blocks")
        )

    def _remedies(self, estimate: Estimate) -> Iterator[str]:
        """Yield settings that make an arm fit, found by trial."""
        needed, available = estimate.needed_bytes or 0, self.available_bytes or 0
        for jobs in range(self.jobs - 1, 0, -1):
            there = memory_for_trial(jobs, self.gpus) or 0
            if needed <= there:
                yield f"--jobs {jobs} leaves {_bytes(there)}"
                break
        fewer_activations, smaller = _fewer_activations(estimate.config), _smaller(estimate.config)
        least: dict[str, Any] = {}
        found = []
        if estimate.size is not None and needed - estimate.size.activation_bytes < available:
            found = [self._first_that_fits(estimate.config, changes) for changes in fewer_activations]
        found.append(self._first_that_fits(estimate.config, smaller))
        if not any(found):
            for changes in fewer_activations:
                least |= changes[-1]
            found = [self._first_that_fits(estimate.config, [{**least, **change} for change in smaller or [{}]])]
        yield from filter(None, found)

    def _estimates(self, configs: Iterable[TrialConfig]) -> list[Estimate]:
        configs = list(configs)
        costs = self._call(f"{STEP_COST}:costs", {"configs": list(map(flatten, configs))})
        return [
            Estimate(config, cost["size"] and TrainingSize(**cost["size"]), cost["copies"], cost["patterns"])
            for config, cost in zip(configs, costs, strict=True)
        ]

    def _first_that_fits(self, config: TrialConfig, changes: Sequence[dict[str, Any]]) -> str | None:
        possible: dict[str, TrialConfig] = {}
        for change in changes:
            said = " and ".join(f"{name}={json.dumps(value)}" for name, value in change.items())
            with suppress(ConfigError):
                possible[said] = TrialConfig.from_dotted(flatten(config) | change)
        for said, estimate in zip(possible, self._estimates(possible.values()), strict=True):
            if estimate.size is not None and self.fits(estimate):
                return f"with {said} it needs {_bytes(estimate.needed_bytes)}"
        return None


def _fewer_activations(config: TrialConfig) -> list[list[dict[str, Any]]]:
    """Alternative changes that keep the network unchanged, each list from mild to strong."""
    changes: list[list[dict[str, Any]]] = []
    if not config.model.checkpoint_blocks:
        changes.append([{"model.checkpoint_blocks": True}])
    batch = config.training.batch_size
    if batch > 1:
        changes.append([{"training.batch_size": batch >> k} for k in range(1, batch.bit_length())])
    return changes


def _smaller(config: TrialConfig) -> list[dict[str, Any]]:
    """Caps on the width below that of the network, largest first."""
    model = config.model
    widest = model.hidden_channels * model.N // (model.min_resolution or 1)
    widest = min(widest, model.max_hidden_channels or widest)
    caps = [model.hidden_channels << k for k in range(model.N.bit_length())]
    return [{"model.max_hidden_channels": cap} for cap in reversed(caps) if cap < widest]


def _bytes(n_bytes: int | None) -> str:
    n = n_bytes or 0
    return f"{n / 1e9:.1f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e7 else f"{parameters / 1e6:.2f} M"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
