"""Cost of a study for the store: rows, bytes and seconds of a few full-size trials, extrapolated to a thousand.

    python -m benchmarks.scale [--stores postgresql,sqlite] [--trials 6] [--markdown docs/scale.md]

Journals as long as in the full profile (20 epochs of 430 steps, the metrics of a real trial) are uploaded through
`fnostab serve` to a real database, then thinned and archived. The numbers for a thousand trials are extrapolated
linearly, not measured.
"""

import argparse
import contextlib
import json
import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import sqlalchemy

from benchmarks.fault_places import postgresql
from benchmarks.faults import write_section
from benchmarks.records import trial_record
from fnostab.prune import KEPT_AT_MOST, archive_journal, old_journals, shape_of
from fnostab.ptychography import metric_names
from fnostab.ptychography.settings import TrialConfig
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import StudySpec
from fnostab.serve.server import TrackingServer
from fnostab.serve.settings import ServerSettings
from fnostab.tracking import free_port, open_store, sync
from fnostab.tracking.repair.thinning import compact, long_runs, thin

EXPERIMENT, HASH = "scale", "0" * 16
EPOCHS, STEPS_AN_EPOCH = 20, 430
STEPS = EPOCHS * STEPS_AN_EPOCH
ARMS = ("control", "arch_fix", "opt_fix")
EVERY_STEP = (names.TRAIN_LOSS, names.GRAD_NORM, names.GRAD_NORM_CLIPPED, names.LEARNING_RATE)
BLOCKS = ("encoder.0", "encoder.1", "encoder.2", "encoder.3", "bottleneck")
EVERY_EPOCH = (metric_names.SPREAD, metric_names.PATCH_VARIATION, metric_names.VAL_SSIM_AMP, "val/mae_val_Amp_loss")
EVERY_EPOCH += tuple(
    each + block for each in (*names.BLOCK_QUANTITIES, names.RESIDUAL_GAIN, names.BLOCK_GRAD_NORM) for block in BLOCKS
)
ONCE = (names.VAL_LOSS_BEST, names.VAL_LOSS_LAST, metric_names.SSIM_AMP, names.LAST_STEP, names.TIME_TO_FAILURE)
THOUSAND = 1000


@dataclass
class Cost:
    """Cost of some trials for one store.

    Attributes:
        store: name of the store.
        trials: number of trials.
        rows: rows of metrics.
        bytes: size of the database.
        journal_bytes: size of the journals.
        sent_s: wall time of the upload through the server.
        server_s: processor time of the server during the upload.
        database_s: processor time of PostgreSQL; None for SQLite, which runs in the server.
        thin_s: wall time of thinning.
        rows_after: rows of metrics after thinning.
        bytes_after: size of the database after thinning.
        archive_bytes: size of the archived journals.
    """

    store: str
    trials: int
    rows: int
    bytes: int
    journal_bytes: int
    sent_s: float
    server_s: float
    database_s: float | None
    thin_s: float = 0.0
    rows_after: int = 0
    bytes_after: int = 0
    archive_bytes: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", default="postgresql,sqlite", help="Of them: %(default)s.")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--markdown", type=Path, help="Put the result into this file.")
    options = parser.parse_args()
    found = [measure_store(store, options.trials) for store in options.stores.split(",")]
    text = "\n".join(table(found))
    print(text)
    if options.markdown:
        write_section(options.markdown, "scale", text, "benchmarks/scale.py")


def measure_store(store: str, trials: int) -> Cost:
    """Upload the journals of some trials to a store, and measure the cost."""
    with tempfile.TemporaryDirectory(prefix="scale-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        output = folder / "outputs"
        write_study(output, trials)
        database = stack.enter_context(postgresql()) if store == "postgresql" else f"sqlite:///{folder}/mlflow.db"
        settings = ServerSettings(folder / "server", database, port=free_port(5760))
        with TrackingServer(settings) as server:
            before = size(database)
            used = processor_s(server, database)
            started = time.monotonic()
            served = open_store(settings.url)
            sync(output, served)
            sent_s = time.monotonic() - started
            server_s, database_s = (now - then for now, then in zip(processor_s(server, database), used, strict=True))
        rows = count_rows(database)
        journals = sum(path.stat().st_size for path in output.rglob("journal.jsonl"))
        cost = Cost(store, trials, rows, size(database) - before, journals, sent_s, server_s, None)
        cost.database_s = database_s if store == "postgresql" else None
        thin_and_archive(cost, output, database, before)
        return cost


def thin_and_archive(cost: Cost, output: Path, database: str, before: int) -> None:
    """Thin and archive as `fnostab prune` does, and measure the cost."""
    store, now_ms = open_store(database), time.time_ns() // 1_000_000
    started = time.monotonic()
    list(thin(store, long_runs(store, now_ms, KEPT_AT_MOST, None), shape_of))
    cost.thin_s = time.monotonic() - started
    compact(store)
    if store.uri.startswith("postgresql"):
        engine = sqlalchemy.create_engine(store.uri, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("VACUUM FULL metrics")
        engine.dispose()
    cost.rows_after, cost.bytes_after = count_rows(database), size(database) - before
    cost.archive_bytes = sum(map(archive_journal, old_journals(output, now_ms)[0]))


def write_study(output: Path, trials: int) -> None:
    """Write the records of a study of finished trials."""
    about = {"experiment": EXPERIMENT, "profile": "full"}
    of_trial = trial_record({}, "data", study=EXPERIMENT, study_hash=HASH, arm="control", seed=0, **about)
    spec = StudySpec(
        task=of_trial.task, name=EXPERIMENT, hash=HASH, description="", control="control",
        arms=dict.fromkeys(ARMS, of_trial.settings), config_hashes=dict.fromkeys(ARMS, of_trial.config_hash),
        metric=of_trial.metric, judged=dict.fromkeys(ARMS, of_trial.judged), margin=0.1, **about,
    )  # fmt: skip
    folder = output / EXPERIMENT / HASH
    spec.write(folder / "study.json")
    rng = random.Random(0)
    for index in range(trials):
        arm, seed = ARMS[index % len(ARMS)], index // len(ARMS)
        directory = folder / f"{arm}-{seed}"
        of_trial.model_copy(update={"arm": arm, "seed": seed}).write(directory / "trial.json")
        write_trial(directory, (*EVERY_STEP, names.CLIP_FRACTION) if arm == "opt_fix" else EVERY_STEP, rng)


def write_trial(directory: Path, every_step: tuple[str, ...], rng: random.Random) -> None:
    """Write a journal as long as a real one, with numbers of full precision."""
    window = STEPS // names.WINDOWS
    with Journal(directory) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@elsewhere", names.DEVICE: "cuda"})
        journal.event(names.PARAMS_EVENT, json.loads(TrialConfig().model_dump_json()))
        for step in range(STEPS):
            journal.record(step, {name: rng.random() for name in every_step})
            if step % window == 0:
                journal.record(step, {names.GRAD_NORM_WINDOW_MAX: rng.random()})
            if step % STEPS_AN_EPOCH == STEPS_AN_EPOCH - 1:
                journal.record(step, {name: rng.random() for name in EVERY_EPOCH})
        journal.record(STEPS, {name: rng.random() for name in ONCE})
        journal.event(names.OUTCOME_EVENT, {"outcome": str(Outcome.CONVERGED)})


def size(database: str) -> int:
    """Size of a database in bytes, including indexes."""
    if database.startswith("sqlite"):
        return Path(database.removeprefix("sqlite:///")).stat().st_size
    return int(_ask(database, "SELECT pg_database_size(current_database())"))


def count_rows(database: str) -> int:
    """Number of metric points in a database."""
    return int(_ask(database, "SELECT count(*) FROM metrics"))


def _ask(database: str, query: str) -> int:
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text(query)).scalar_one()
    engine.dispose()
    return int(found)


def processor_s(server: TrackingServer, database: str) -> tuple[float, float]:
    """Processor seconds so far of the server's processes and of PostgreSQL's, including ended ones."""
    assert server._process is not None
    port = sqlalchemy.make_url(database).port
    return _used([psutil.Process(server._process.pid)]), _used(_listening(port)) if port else 0.0


def _listening(port: int) -> Iterator[psutil.Process]:
    for each in psutil.net_connections("tcp4"):
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.pid:
            yield psutil.Process(each.pid)


def _used(processes: Iterable[psutil.Process]) -> float:
    total = 0.0
    for root in processes:
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        times = root.cpu_times()
        total += times.children_user + times.children_system
    return total


def table(costs: list[Cost]) -> Iterator[str]:
    """Lines of a Markdown table of the measurements, with the extrapolation to a thousand trials."""
    yield f"| | {' | '.join(f'{c.store}, {c.trials} trials | by proportion, {THOUSAND:,}' for c in costs)} |"
    yield "|---|" + "---|" * (2 * len(costs))
    for what, value, form in (
        ("rows of metrics", lambda c: c.rows, "{:,.0f}"),
        ("journals (MB)", lambda c: c.journal_bytes / 1e6, "{:,.1f}"),
        ("database (MB)", lambda c: c.bytes / 1e6, "{:,.1f}"),
        ("sent in (s)", lambda c: c.sent_s, "{:,.0f}"),
        ("processor time, server (s)", lambda c: c.server_s, "{:,.0f}"),
        ("processor time, PostgreSQL (s)", lambda c: c.database_s, "{:,.0f}"),
        ("`prune`: thinned in (s)", lambda c: c.thin_s, "{:,.1f}"),
        ("rows after it", lambda c: c.rows_after, "{:,.0f}"),
        ("database after it (MB)", lambda c: c.bytes_after / 1e6, "{:,.1f}"),
        ("archives after it (MB)", lambda c: c.archive_bytes / 1e6, "{:,.1f}"),
    ):
        cells = []
        for cost in costs:
            found = value(cost)
            scaled = None if found is None else found * THOUSAND / cost.trials
            cells += ["" if number is None else form.format(number) for number in (found, scaled)]
        yield f"| {what} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
