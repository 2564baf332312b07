"""Download the black box of a failed trial from the store."""

from pathlib import Path, PurePosixPath

from fnostab.errors import TrackingError
from fnostab.record import names
from fnostab.record.outcomes import FAILURES
from fnostab.tracking.store.store import Store, existing_run, reported


def fetch_black_box(store: Store, run_id: str, into: Path) -> Path:
    """Download a trial's black box into the folder ``into``; no file is executed or unpickled.

    Returns:
        The folder of its files, within ``into``.

    Raises:
        TrackingError: there is no such run, it has no black box, a name in that is not a plain file name, or the
            store does not answer.
    """
    with reported(store):
        tags = existing_run(store, run_id).data.tags
        paths = [artifact.path for artifact in store.client.list_artifacts(run_id, names.BLACK_BOX)]
        if not paths:
            raise TrackingError(f"run {run_id} has no black box: {_why_none(tags.get(names.OUTCOME))}")
        folder = into / names.BLACK_BOX
        for path in paths:
            if not _is_plain(path):
                raise TrackingError(
                    f"run {run_id} has an artifact {path!r}, which is not a plain file of its black box"
                )
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            file = Path(store.client.download_artifacts(run_id, path, str(folder)))  # without its folder in the run
            if file.resolve().parent != folder.resolve():
                raise TrackingError(f"artifact {path!r} of run {run_id} would lie outside {folder}")
    return folder


def _is_plain(path: str) -> bool:
    """Whether an artifact path names a file directly in the black box."""
    within = PurePosixPath(path)
    return path == f"{names.BLACK_BOX}/{within.name}" and within.name not in ("", ".", "..") and "\\" not in path


def _why_none(outcome: str | None) -> str:
    if outcome in FAILURES:
        return f"it is {outcome}, but its files were not sent; `fnostab sync` on its output directory sends them"
    return f"its outcome is {outcome or 'not known'}, and only trials that fail keep one ({', '.join(FAILURES)})"
