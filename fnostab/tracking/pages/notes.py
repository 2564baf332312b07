"""Notes on the pages of runs: Markdown that the MLflow UI shows.

A note that a user wrote or changed in the UI is never overwritten: a tag keeps the digest of the text written here.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from mlflow import MlflowClient

from fnostab.record import names
from fnostab.record.outcomes import EXCLUDED, FAILURES, Outcome
from fnostab.record.settings import value_text
from fnostab.record.trial import StudySpec
from fnostab.tracking.store.paging import of_kind

NOTE = "mlflow.note.content"
WRITTEN = "fnostab.note"  # SHA-256 of the note that was written
LONGEST = 7900  # characters; MLflow refuses a tag above 8000
LONGEST_TEXT = 1500  # of one message
MOST_LINES = 30  # of one list
PICTURES = 2
_MARKS = re.compile(r"([\\`*_{}\[\]()#+!|~@-])")


def escaped(text: object) -> str:
    """Escape ``text`` as one line of Markdown that shows it literally: no markup, HTML, link or mention."""
    line = " ".join(str(text).split())[:LONGEST_TEXT]
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _MARKS.sub(r"\\\1", line)
    return re.sub(r":(?=\S)", "&#58;", line)  # else a URL would become a link, and :+1: an emoji


def code(text: object) -> str:
    """Format ``text`` as inline code, with backticks replaced; nothing else needs escaping."""
    line = " ".join(str(text).split())[:LONGEST_TEXT]
    return "`" + line.replace("`", "'") + "`"


def run_link(text: str, experiment: str, run_id: str, artifact: str | None = None) -> str:
    """Link, within the MLflow UI, to a run or one of its artifacts; ``text`` must be escaped already."""
    place = "" if artifact is None else f"/artifacts/{quote(artifact)}".rstrip("/")
    return f"[{text}](#/experiments/{experiment}/runs/{run_id}{place}?workflowType=machine_learning)"


def bounded(head: str, tail: str = "", more: str = "… (cut)") -> str:
    """Join ``head`` and ``tail``; if both exceed MLflow's limit, the head is cut at the end of a line."""
    room = LONGEST - len(tail)
    if len(head) <= room:
        return head + tail
    return head[: room - len(more) - 2].rpartition("\n")[0] + f"\n\n{more}" + tail


def as_tags(text: str) -> dict[str, str]:
    """Tags that give a new run a note."""
    return {NOTE: text, WRITTEN: digests(text)}


def put_note(client: MlflowClient, run_id: str, text: str) -> bool:
    """Write a run's note unless a user wrote one; return whether the note is ``text`` now."""
    return put_text(partial(client.set_tag, run_id), client.get_run(run_id).data.tags, text)


def put_text(
    set_tag: Callable[[str, str], object], tags: Mapping[str, str], text: str, name: str = NOTE, written: str = WRITTEN
) -> bool:
    """Write ``text`` to a tag unless a user wrote another one; return whether the tag is ``text`` now.

    ``tags`` are the present tags of the run or experiment; the one called ``written`` keeps the digest.
    """
    there = tags.get(name)
    if there == text:
        return True
    if not is_ours(there, tags.get(written)):
        return False
    # The digest goes first, together with that of the old text: a crash in between is harmless
    set_tag(written, digests(text, there))
    set_tag(name, text)
    return True


def withdraw_note(client: MlflowClient, run_id: str) -> None:
    """Delete a run's note unless a user wrote it."""
    tags = client.get_run(run_id).data.tags
    if NOTE in tags and is_ours(tags[NOTE], tags.get(WRITTEN)):
        client.delete_tag(run_id, NOTE)


def trial_note(
    run: Any,
    outcome: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]],
    control: str,
    artifacts: Iterable[str],
    picture: str | None = None,
) -> str:
    """Compose the note of a trial that has ended.

    ``arms`` has the settings of each arm by dotted name, and is empty if they are not known. ``picture`` is the path of
    the figure that is linked and shown first, if the run holds it.
    """
    tags, experiment, run_id = run.data.tags, run.info.experiment_id, run.info.run_id
    arm, seed = tags.get(names.ARM), tags.get(names.SEED)
    known = sorted(artifacts)
    title = f"Arm **{escaped(arm)}**, seed {escaped(seed)}" if arm else "A run outside any study"
    lines = [f"{title}: **{escaped(outcome.get('outcome') or 'ended')}**", ""]
    lines += [f"- {line}" for line in _what_happened(outcome)]
    lines += ["", *_what_it_is(arm, arms, control), ""]
    links = _trial_links(experiment, run_id, tags, known)
    pictures = sorted((path for path in known if path.endswith(".png")), key=lambda path: path != picture)[:PICTURES]
    if picture in known:  # on the first line, which a folded note shows
        lines[0] += f" · {run_link(_shown(picture), experiment, run_id, picture)}"
    images = "".join(f"![{_shown(path)}](get-artifact?path={quote(path)}&run_uuid={run_id})\n\n" for path in pictures)
    return bounded("\n".join(lines), f"\n\n{' · '.join(links)}\n\n{images}")


def study_note(spec: StudySpec, experiment: str, outcomes: Mapping[str, Counter[str]], verdict: Any = None) -> str:
    """Compose the note of a study: its arms, the number of trials by arm and outcome, and its newest verdict."""
    lines = [escaped(spec.description), "", f"{code(spec.control)} is the control arm. The others differ from it:", ""]
    for arm in spec.arms:
        if arm != spec.control:
            lines.append(f"- {code(arm)}: {', '.join(_differences(spec.arms[arm], spec.arms[spec.control])) or 'not'}")
    shown = [o for o in (Outcome.CONVERGED, *FAILURES, *EXCLUDED) if any(c[o] for c in outcomes.values())]
    lines += ["", f"| arm | trials | {' | '.join(shown)} |", "|" + "---|" * (2 + len(shown))]
    for arm, counts in outcomes.items():
        cells = [code(arm).replace("|", "¦"), str(counts.total()), *(str(counts[o]) for o in shown)]
        lines.append(f"| {' | '.join(cells)} |")
    links = [_search_link("trials", experiment, f"tags.`{names.STUDY_HASH}` = '{spec.hash}'")]
    if verdict is not None:
        links.append(run_link(escaped(verdict.info.run_name), experiment, verdict.info.run_id))
    return bounded("\n".join(lines) + "\n", f"\n{' · '.join(links)}\n")


def _what_happened(outcome: Mapping[str, Any]) -> list[str]:
    step, good = outcome.get("failure_step"), outcome.get("known_good_step")
    lines = []
    if step is not None:
        since = "no earlier one is known to be good" if good is None else f"the last step known to be good is {good}"
        lines.append(f"It failed at step {step}; {since}.")
    if held := outcome.get("rules_held"):
        lines.append(f"Rules of failure that it met: {', '.join(map(escaped, held))}.")
    if missing := outcome.get("not_judged"):
        lines.append(f"Rules that could not be judged: {'; '.join(map(escaped, missing))}.")
    if reason := outcome.get("reason"):
        lines.append(f"Reason: {escaped(reason)}")
    return lines


def _what_it_is(arm: str | None, arms: Mapping[str, Mapping[str, Any]], control: str) -> list[str]:
    """Lines that say how the arm differs from control."""
    if arm is None or arm not in arms or control not in arms:
        return []
    if arm == control:
        return ["It is the control arm."]
    changed = _differences(arms[arm], arms[control])
    more = [f"and {len(changed) - MOST_LINES} more"] if len(changed) > MOST_LINES else []
    return [
        f"It differs from {code(control)} in:",
        "",
        *(f"- {line}" for line in [*changed[:MOST_LINES], *more] or ["nothing"]),
    ]


def _differences(settings: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    both = sorted(settings.keys() | others.keys())
    return [
        f"{code(name)} {code(value_text(settings.get(name)))} (not {code(value_text(others.get(name)))})"
        for name in both
        if value_text(settings.get(name)) != value_text(others.get(name))
    ]


def _trial_links(experiment: str, run_id: str, tags: Mapping[str, str], artifacts: Iterable[str]) -> list[str]:
    links = []
    if names.PARENT_RUN in tags:
        links.append(run_link("study", experiment, tags[names.PARENT_RUN]))
        links.append(_search_link("verdicts", experiment, of_kind(names.KIND_VERDICT)))
    titles = {"figures": "figures", "report": "report", names.BLACK_BOX: "black box", "checkpoint": "best weights"}
    links += [run_link(titles[path], experiment, run_id, path) for path in artifacts if path in titles]
    return [*links, run_link("all artifacts", experiment, run_id, "")]


def _shown(path: str) -> str:
    """A figure's subject, from its file's name."""
    return escaped(PurePosixPath(path).stem.rstrip("_0123456789"))


def _search_link(text: str, experiment: str, found: str) -> str:
    address = f"#/experiments/{experiment}/runs?searchFilter={quote(found, safe='')}&workflowType=machine_learning"
    return f"[{text}]({address})"


def is_ours(text: str | None, written: str | None) -> bool:
    """Whether fnostab wrote ``text``, as a digest in ``written`` shows, or there is no text."""
    return not text or digests(text) in (written or "").split()


def digests(*texts: str | None) -> str:
    """SHA-256 of each text that is not empty, separated by spaces."""
    return " ".join(hashlib.sha256(text.encode()).hexdigest() for text in texts if text)
