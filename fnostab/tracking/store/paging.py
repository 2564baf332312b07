"""Searches of MLflow, page after page: an answer holds a thousand entries at most unless more are asked for."""

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["every"]

PAGE = 1000


def every(search: Callable[..., Any], *args: Any, page: int = PAGE, **options: Any) -> Iterator[Any]:
    """All that a search of MLflow's client, as ``client.search_runs``, finds, asked for as it is taken."""
    token = None
    while True:
        found = search(*args, max_results=page, page_token=token, **options)
        yield from found
        token = found.token
        if not token:
            return
