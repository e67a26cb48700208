"""What follows from something heard. Pure: at first from the words alone, then from the issue's history.

Who may ask is a question to GitHub; ``decide`` says when it needs the answer, and is asked again with it.
"""

import re
from typing import Literal

import msgspec

from contracts import facts as f
from contracts.envelope import derive_run_id
from services.gateway.heard import AnyHeard, Commented, Ended, Ignored, Labelled, Opened
from services.gateway.state import Busy, Issue, Parked, Quiet

MAY_WRITE = frozenset({"write", "maintain", "admin"})

_FENCES = re.compile(
    r"^[ ]{0,3}(?:(`{3,})[^`\n]*|(~{3,})[^\n]*)$"
    r"(?:.*?^[ ]{0,3}(?(1)\1`*|\2~*)[ \t]*$|.*\Z)",
    re.DOTALL | re.MULTILINE,
)
_HIDDEN = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_QUOTES = re.compile(r"^[ ]{0,3}>.*$", re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_WORD = r"(?![\w/-])(?:[,:]?[ \t]+(\w+))?"
_SLASH = re.compile(rf"^[ ]{{0,3}}/millrace{_WORD}", re.IGNORECASE | re.MULTILINE)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator set: the mention (with its @) and the label that ask for work."""

    mention: str
    label: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What GitHub says right now: the actor's permission, and the issue's state if it is known."""

    permission: str
    state: Literal["open", "closed", "gone", "unknown"]


class AskGitHub(msgspec.Struct, frozen=True):
    """Decide again with a ``Standing``."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Start this run. The ids of App and installation are settled where it is carried out."""

    run: str
    trigger: f.Trigger


class Tell(msgspec.Struct, frozen=True, kw_only=True):
    """Tell the run that is going on."""

    run: str
    fact: f.QuestionAnswered | f.RunCancelled


Plan = Request | Tell | AskGitHub | Ignored


def command_of(text: str, mention: str) -> Literal["work", "stop"] | None:
    """What a comment asks for: ``/millrace`` at the start of a line, or the mention anywhere in prose.

    Quotations, code and HTML comments do not count. ``stop`` after either ends the run; any other word asks
    for work.
    """
    prose = text.replace("\r\n", "\n")
    for no_prose in (_FENCES, _HIDDEN, _QUOTES, _CODE):
        prose = no_prose.sub(" ", prose)
    named = re.compile(rf"(?<![\w/@.`-]){re.escape(mention)}{_WORD}", re.IGNORECASE)
    found = _SLASH.search(prose) or named.search(prose)
    if found is None:
        return None
    return "stop" if (found[1] or "").lower() in ("stop", "cancel") else "work"


def at_once(heard: AnyHeard, rules: Rules) -> Ignored | None:
    """Why nothing can follow, whatever the issue's history is; None if something may."""
    match heard:
        case Labelled(label=label) if label.casefold() != rules.label.casefold():
            return Ignored(reason="other_label")
        case _:
            return None


def only_an_answer(heard: AnyHeard, rules: Rules) -> bool:
    """Whether it matters only to an issue that Millrace has worked on: a comment without a command."""
    return isinstance(heard, Commented) and command_of(heard.text, rules.mention) is None


def decide(issue: Issue, heard: AnyHeard, standing: Standing | None, rules: Rules) -> Plan:
    """The one thing that follows.

    Args:
        issue: folded from the log.
        heard: what somebody did.
        standing: GitHub's answer about that person and issue; None if it was not asked yet.
        rules: the operator's.
    """
    match heard:
        case Ended(how=how):
            return _cancel(issue, heard, f"the issue was {how}")
        case Commented(text=text):
            return _commented(issue, heard, command_of(text, rules.mention), standing)
        case Labelled():
            return at_once(heard, rules) or _request(issue, heard, standing, "label")
        case Opened():
            return _request(issue, heard, standing, "opened")


def run_id(heard: AnyHeard) -> str:
    """The run that this asks for: the same however often and through how many hooks it is delivered."""
    place = (heard.repository.id, heard.issue.number)
    match heard:
        case Commented(comment_id=comment_id):
            return derive_run_id(heard.at, "comment", *place, comment_id)
        case Labelled(while_opening=False):
            return derive_run_id(heard.at, "label", *place, heard.at.isoformat())
        case _:
            return derive_run_id(heard.at, "opened", *place)


def _commented(
    issue: Issue, heard: Commented, command: Literal["work", "stop"] | None, standing: Standing | None
) -> Plan:
    match issue, command:
        case _, "work" if not isinstance(issue, Parked):
            return _request(issue, heard, standing, "comment")
        case _, "stop":
            plan = _cancel(issue, heard, "asked to stop")
            return plan if isinstance(plan, Ignored) else _permitted(standing) or plan
        case Parked(run=run), _:
            answer = f.QuestionAnswered(answer=heard.text, by=heard.actor, comment_id=heard.comment_id)
            return _permitted(standing) or Tell(run=run, fact=answer)
        case _:
            return Ignored(reason="no_command")


def _request(
    issue: Issue, heard: AnyHeard, standing: Standing | None, kind: Literal["opened", "comment", "label"]
) -> Plan:
    wanted = run_id(heard)
    if wanted in issue.runs:
        return Ignored(reason="already_requested")
    if not isinstance(issue, Quiet):
        return Ignored(reason="run_active")
    refused = _permitted(standing)
    if refused is not None or standing is None:
        return refused or AskGitHub()
    if standing.state in ("closed", "gone"):
        return Ignored(reason=f"issue_{standing.state}")
    trigger = f.Trigger(
        kind=kind,
        actor=heard.actor,
        permission=standing.permission,
        text=heard.text if isinstance(heard, Commented) else "",
        comment_id=heard.comment_id if isinstance(heard, Commented) else None,
        delivery=heard.delivery,
    )
    return Request(run=wanted, trigger=trigger)


def _cancel(issue: Issue, heard: AnyHeard, why: str) -> Plan:
    match issue:
        case Busy(run=run, cancelled=False) | Parked(run=run):
            return Tell(run=run, fact=f.RunCancelled(by=heard.actor, why=why))
        case _:
            return Ignored(reason="no_run_active")


def _permitted(standing: Standing | None) -> Plan | None:
    """None if the person may; else what to do about it."""
    if standing is None:
        return AskGitHub()
    return None if standing.permission in MAY_WRITE else Ignored(reason="not_authorised")
