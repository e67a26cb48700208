"""Kinds of facts to subjects and back: ``issues.<repository_id>.<issue>.<run>.<kind>``.

Also the subjects of request and reply, which no stream holds.
"""

import re

from contracts.envelope import RunKey
from contracts.facts import Fact

STREAM = "ISSUES"
STREAM_SUBJECTS = "issues.>"
DEAD_LETTERS = "DEAD_LETTERS"
DEAD_LETTER_SUBJECTS = "dead.>"
CHANGES = "CHANGES"
"""The object store that holds changes under their digest."""

_SUBJECT = re.compile(r"issues\.([0-9]+)\.([0-9]+)\.([0-9A-HJKMNP-TV-Z]{26})\.([a-z_]+\.[a-z_]+)")


def tag_of(fact: Fact | type[Fact]) -> str:
    """``run.requested.v1``."""
    return str(fact.__struct_config__.tag)


def kind_of(fact: Fact | type[Fact]) -> str:
    """``run.requested``: the tag without its version."""
    return tag_of(fact).rpartition(".v")[0]


def subject_of(key: RunKey, fact: Fact | type[Fact]) -> str:
    """Where this fact about this run is published."""
    return f"issues.{key.repository_id}.{key.issue}.{key.run}.{kind_of(fact)}"


def run_subjects(key: RunKey) -> str:
    """The filter that all writers of a run use for the expected sequence: it must be the very same."""
    return f"issues.{key.repository_id}.{key.issue}.{key.run}.>"


def issue_subjects(repository_id: int, issue: int) -> str:
    """All runs of one issue."""
    return f"issues.{repository_id}.{issue}.>"


def every_run(fact: type[Fact]) -> str:
    """The consumer filter for one kind."""
    return f"issues.*.*.*.{kind_of(fact)}"


def parse_subject(subject: str) -> tuple[RunKey, str]:
    """Run and kind of a subject of the log; ``ValueError`` for any other."""
    match = _SUBJECT.fullmatch(subject)
    if match is None:
        raise ValueError(f"not a subject of the log: {subject!r}")
    return RunKey(int(match[1]), int(match[2]), match[3]), match[4]


def dead_letter_subject(service: str, subject: str) -> str:
    """Where a service puts a message that it gave up on."""
    return f"dead.{service}.{subject}"


def vault_subject(service: str, thing: str) -> str:
    """Where ``service`` asks the vault for ``thing``; the subject carries the right to ask."""
    return f"vault.v1.{service}.{thing}"


def sandbox_subject(sandbox_id: str) -> str:
    """Where the runner that holds this sandbox answers tool calls."""
    return f"sandbox.v1.{sandbox_id}.call"


def engine_subject(sandbox_id: str) -> str:
    """Where that runner tells what an engine in this sandbox asks the model (``contracts.engine``)."""
    return f"sandbox.v1.{sandbox_id}.engine"


RUNNERS_SUBJECT = "sandbox.v1.runners"
"""Every runner answers with what it holds."""

PROCESS_SUBJECT = "gateway.v1.process"
"""Where the gateway takes an operator's request that came in elsewhere: body and answer as HTTP's."""


def history_subject(question: str) -> str:
    """Where the history answers."""
    return f"history.v1.{question}"
