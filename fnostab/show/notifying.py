"""Notify people of the end of a study with apprise: by mail, chat, a webhook or another service.

The addresses hold passwords and tokens. They are never printed, logged or recorded: errors name only their scheme, and
apprise's own log, which quotes them, is turned off.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from fnostab.errors import ConfigError, FnostabError, one_line
from fnostab.record.settings import suggestion

VARIABLE = "FNOSTAB_NOTIFY"
ACCEPTED = "mailto://USER:PASSWORD@HOST, slack://TOKENS/CHANNEL, tgram://BOT/CHAT, json://HOST:PORT, ..."
LIMIT_S = 30.0  # for all addresses together; apprise gives up on most services after 4 s
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+-]{0,19})://")
_BETWEEN = re.compile(r"[\s,]+(?=[a-zA-Z][a-zA-Z0-9+-]*://)")  # separates addresses in one text
_log = logging.getLogger(__name__)


class Notifier:
    """Sends short messages to addresses; without addresses it does nothing.

    Args:
        addresses: URLs of apprise, as ``json://host:8080``; one text may hold several, separated by blanks or commas.

    Attributes:
        answer: lines on the study's answer, as far as it is known; a message on a failure has them too.

    Raises:
        ConfigError: apprise is not installed, or does not accept an address.
    """

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        os.environ.pop(VARIABLE, None)  # else every trial would inherit it, and Slurm store it with jobs
        self.answer: Sequence[str] = ()
        self._targets = _targets(addresses) if addresses else []

    def __bool__(self) -> bool:
        return bool(self._targets)

    def send(self, title: str, *lines: str) -> None:
        """Send a message to every address; log a warning for each that rejects it or does not answer in time."""
        taken = dict.fromkeys(self._targets, False)

        def deliver(target: Any) -> None:
            with suppress(Exception):  # raised by a service's own code; the message may quote the address
                taken[target] = bool(target.notify(title=title, body="\n".join(lines), body_format="text"))

        threads = [threading.Thread(target=deliver, args=(target,), daemon=True) for target in self._targets]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + LIMIT_S
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        for number, target in enumerate(self._targets, start=1):
            if not taken[target]:
                _log.warning(
                    "--notify: address %d (%s) rejected the message; the study is not affected. "
                    "`apprise -vv --body test URL` shows why",
                    number,
                    target.service_name,
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


def _targets(addresses: Sequence[str]) -> list[Any]:
    """Make apprise's services, in the order of their addresses."""
    try:
        import apprise
    except ImportError:
        raise ConfigError("--notify needs apprise: pip install 'fnostab[notify]'") from None
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    addresses = [each.strip(" \t\r\n,") for address in addresses for each in _BETWEEN.split(address.strip())]
    found = [apprise.Apprise.instantiate(address, suppress_exceptions=True) for address in addresses]
    for number, (address, target) in enumerate(zip(addresses, found, strict=True), start=1):
        if target is None:
            raise ConfigError(_refusal(number, address, sorted(apprise.plugins.N_MGR.schemas())))
    return found


def _refusal(number: int, address: str, schemes: Sequence[str]) -> str:
    """Say what is wrong with an address, of which only the scheme may be shown."""
    named = _SCHEME.match(address)
    if not address:
        what = "is empty"
    elif named is None:
        what = "has no scheme such as json://"
    elif (scheme := named[1].lower()) in ("http", "https"):
        what = f"names no known service; a webhook of your own is json{scheme[4:]}://HOST/PATH"
    elif named[1].lower() in schemes:
        what = f"({named[1]}://...) is incomplete"
    else:
        what = f"has the unknown scheme {named[1]!r}{suggestion(named[1].lower(), schemes)}"
    return f"--notify: address {number} {what}; accepted: Apprise URLs, {ACCEPTED}"
