"""Upload the journals of many trials while they run, without disturbing their writers.

An unavailable store loses nothing: the journals are on disk, and the upload continues when it is back. Errors are in
`Uploader.trouble`; nothing is raised before `Uploader.drain`.
"""

import shlex
import threading
import time
from pathlib import Path

from fnostab.errors import FnostabError, TrackingError
from fnostab.record.plurals import counted
from fnostab.tracking.environment import settled
from fnostab.tracking.store.errors import describe
from fnostab.tracking.store.store import Store, is_of_one_run
from fnostab.tracking.upload.follower import Follower

PAUSE_S = 0.2  # between two polls of `drain`


class Uploader:
    """Uploader of trials' journals.

    Args:
        store: tracking store to send to.
        study_run_id: parent of the trials' runs; None for runs outside any study.
    """

    def __init__(self, store: Store, study_run_id: str | None = None) -> None:
        self._store = store
        self._study_run_id = study_run_id
        self._followers: dict[Path, Follower] = {}
        self._troubles: dict[Path, str] = {}
        self._sending = threading.Lock()
        self._stopping = threading.Event()

    @property
    def trouble(self) -> str | None:
        """Error of the last poll in one line; None if all was sent."""
        return next(iter(self._troubles.values()), None)

    def follow(self, trial_directory: str | Path) -> None:
        """Send the journal in a directory from the next poll on; it need not exist yet."""
        directory = Path(trial_directory)
        self._followers.setdefault(directory, Follower(self._store, directory, self._study_run_id))

    def poll(self) -> int:
        """Send the new records of every journal; return the number of points sent. Never raises."""
        with self._sending:
            return self._poll()

    def drain(self, timeout_s: float) -> None:
        """Wait until all records are sent.

        Raises:
            TrackingError: some are not sent within ``timeout_s``; the message says how to send them later.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if self._sending.acquire(timeout=max(deadline - time.monotonic(), 0)):
                try:
                    with settled():
                        self._poll()
                finally:
                    self._sending.release()
                if not any(follower.is_behind for follower in self._followers.values()):
                    return
            if time.monotonic() + PAUSE_S > deadline:
                break
            time.sleep(PAUSE_S)
        behind = [directory for directory, follower in self._followers.items() if follower.is_behind]
        if not behind:
            return
        where = behind[0] if len(behind) == 1 else behind[0].parent
        raise TrackingError(
            f"{len(behind)} of {counted(len(self._followers), 'trial is', 'trials are')} not fully sent "
            f"({self.trouble or 'still sending'}): `fnostab sync {shlex.quote(str(where))}` sends the rest later"
        )

    def start(self, interval_s: float = 1.0) -> None:
        """Poll in a background thread, so that neither training nor the terminal waits for the store."""
        threading.Thread(target=self._run, args=(interval_s,), name="fnostab-uploader", daemon=True).start()

    def stop(self) -> None:
        """Start no further poll in the background; `drain` then sends what remains."""
        self._stopping.set()

    def _run(self, interval_s: float) -> None:
        while not self._stopping.wait(interval_s):
            self.poll()

    def _poll(self) -> int:
        points = 0
        for directory, follower in list(self._followers.items()):
            try:
                points += follower.send()
                self._troubles.pop(directory, None)
                if follower.left_out:
                    self._troubles[directory] = f"{directory.name}: not sent: {follower.left_out[0]}"
            except FnostabError as error:
                self._troubles[directory] = str(error)
            except Exception as error:  # artifact stores raise errors of their own libraries
                self._troubles[directory] = f"{directory.name}: {describe(error, self._store.uri)}"
                if not is_of_one_run(self._store, error):
                    # The store is unavailable: the other journals are not tried now, and go first next time
                    self._followers[directory] = self._followers.pop(directory)
                    break
        return points
