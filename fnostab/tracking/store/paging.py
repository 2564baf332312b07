"""Search MLflow page by page: an answer holds at most a thousand entries unless more are requested."""

from collections.abc import Callable, Iterator
from typing import Any

from fnostab.record import names

PAGE = 1000
NEWEST_FIRST = ["attributes.start_time DESC"]


def of_kind(kind: str, study_hash: str | None = None) -> str:
    """MLflow filter for the runs of a kind, of all studies or one."""
    of_study = "" if study_hash is None else f" AND tags.`{names.STUDY_HASH}` = '{study_hash}'"
    return f"tags.`{names.KIND}` = '{kind}'{of_study}"


def finished_verdicts(study_run: str = "") -> str:
    """MLflow filter for verdicts that were not interrupted, on any study or on that of a parent run."""
    of_study = f" AND tags.`{names.STUDY_RUN}` LIKE '%{study_run}%'"
    return f"{of_kind(names.KIND_VERDICT)}{of_study} AND attributes.status = 'FINISHED'"


def every(search: Callable[..., Any], *args: Any, page: int = PAGE, **options: Any) -> Iterator[Any]:
    """Yield all results of a search method of MLflow's client, such as ``client.search_runs``, page by page."""
    token = None
    while True:
        found = search(*args, max_results=page, page_token=token, **options)
        yield from found
        token = found.token
        if not token:
            return
