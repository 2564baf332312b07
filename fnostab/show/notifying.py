"""Notify people of the end of a study with apprise: by mail, chat, a webhook or another service.

The addresses hold passwords and tokens. They are never printed, logged or recorded: errors only count them, and
apprise's own log, which quotes them, is turned off.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from fnostab.errors import ConfigError, FnostabError, one_line

VARIABLE = "FNOSTAB_NOTIFY"
ACCEPTED = "mailto://USER:PASSWORD@HOST, slack://TOKENS/CHANNEL, a webhook as json://HOST:PORT/PATH, ..."
LIMIT_S = 30.0  # for all addresses together; most services give up after 4 s
_log = logging.getLogger(__name__)


class Notifier:
    """Sends short messages to addresses; without addresses it does nothing.

    Args:
        addresses: URLs of apprise, as ``json://host:8080``; one text may hold several, separated by blanks or commas.

    Attributes:
        answer: lines on the study's answer, as far as it is known; a message on a failure has them too.

    Raises:
        ConfigError: apprise is not installed, or can't read an address.
    """

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        os.environ.pop(VARIABLE, None)  # else every trial would inherit it, and Slurm store it with jobs
        self.answer: Sequence[str] = ()
        self._services: Any = _services(addresses) if addresses else None

    def __bool__(self) -> bool:
        return bool(self._services)

    def send(self, title: str, *lines: str) -> None:
        """Send a message to every address; log a warning if one rejects it or does not answer in time."""
        if not self:
            return
        taken: list[bool] = []

        def deliver() -> None:
            with suppress(Exception):  # raised by a service's own code; the message may quote the address
                taken.append(bool(self._services.notify(title=title, body="\n".join(lines), body_format="text")))

        thread = threading.Thread(target=deliver, daemon=True)
        thread.start()
        thread.join(LIMIT_S)
        if taken != [True]:
            _log.warning(
                "--notify: not every address took the message; the study is not affected. "
                "`apprise -vv --body test URL` shows why"
            )

    @contextmanager
    def of_failures(self, study: Callable[[], str], link: Callable[[], str]) -> Iterator[None]:
        """Send a message if the block fails or is interrupted; none for a ConfigError, which refuses the command line.

        Args:
            study: returns the name of the study; called after the failure.
            link: returns a line that says where its records are; called after the failure.
        """
        with self._of_a_closed_terminal(study):
            try:
                yield
            except ConfigError:
                raise
            except KeyboardInterrupt as error:
                notes: list[str] = getattr(error, "__notes__", [])  # say what happens to the trials
                what = next(iter(notes), "the same `fnostab run` command resumes it")
                self._send_failure(study, f"was interrupted: {what}", link, how="was interrupted")
                raise
            except FnostabError as error:
                self._send_failure(study, f"stopped: {error}", link)
                raise
            except Exception as error:
                self._send_failure(study, f"stopped: {one_line(error)}", link)
                raise

    @contextmanager
    def _of_a_closed_terminal(self, study: Callable[[], str]) -> Iterator[None]:
        """Send a message if SIGHUP ends this process because its terminal closed, as after a broken connection."""

        def tell_and_end(signum: int, frame: object) -> None:
            what = "lost its terminal: the same `fnostab run` command resumes it; tmux or nohup keeps it running"
            self._send_failure(study, what)  # no link: this may interrupt a request to the store
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

        if not self or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:  # as under nohup
            yield
            return
        signal.signal(signal.SIGHUP, tell_and_end)
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def _send_failure(
        self, study: Callable[[], str], what: str, link: Callable[[], str] = str, how: str = "has stopped"
    ) -> None:
        if self:
            self.send(f"fnostab: {study()} {how}", f"{study()} {what}", *self.answer, *filter(None, [link()]))


def _services(addresses: Sequence[str]) -> Any:
    """Let apprise read the addresses."""
    try:
        import apprise
    except ImportError:
        raise ConfigError("--notify needs apprise: pip install 'fnostab[notify]'") from None
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    services = apprise.Apprise()
    for number, address in enumerate(addresses, start=1):
        if not services.add(address.strip(" ,")):
            raise ConfigError(f"--notify: apprise can't read address {number}; accepted: {ACCEPTED}")
    return services
