"""Searches of MLflow, page after page: an answer holds a thousand entries at most unless more are asked for."""

from collections.abc import Callable, Iterator
from typing import Any

from fnostab.record import names

__all__ = ["NEWEST_FIRST", "every", "of_kind"]

PAGE = 1000
NEWEST_FIRST = ["attributes.start_time DESC"]


def of_kind(kind: str, study_hash: str | None = None) -> str:
    """MLflow's filter of the runs of a kind, of any study or one."""
    of_study = "" if study_hash is None else f" AND tags.`{names.STUDY_HASH}` = '{study_hash}'"
    return f"tags.`{names.KIND}` = '{kind}'{of_study}"


def every(search: Callable[..., Any], *args: Any, page: int = PAGE, **options: Any) -> Iterator[Any]:
    """All that a search of MLflow's client, as ``client.search_runs``, finds, asked for as it is taken."""
    token = None
    while True:
        found = search(*args, max_results=page, page_token=token, **options)
        yield from found
        token = found.token
        if not token:
            return
