"""Every sentence that a person reads, as functions named after the situation. Pure.

Text by others comes in as it is and is cleaned where it is put in (``services.publisher.outbound``). Plans
hold these words, so that a test can read what is said. Headings are ours alone: ``outbound`` takes them from
text by others, so that nobody can imitate the section with the evidence.
"""

from contracts import facts as f
from contracts.facts import Check
from services.publisher import outbound

WEB = "https://github.com"
"""Where links may lead; the assembly sets the configured GitHub."""
SHOWN = 50
"""Files that a pull request names; with all else that keeps its body within GitHub's limit."""


def acknowledged() -> str:
    """First words: somebody has seen it."""
    return "**Millrace is working on this.** This comment will say how it goes."


def working(turn: f.TurnTaken, cost: int) -> str:
    """News from a run that goes on."""
    doing = next((_doing(block) for block in turn.content if block.get("type") == "tool_use"), "thinking")
    return (
        f"**Millrace is working on this.**\n\nTurn {turn.turn}: {doing}\n\n<sub>{_dollars(cost)} so far</sub>"
    )


def verifying(proposal: f.SolutionProposed) -> str:
    """A change is there and is being checked."""
    return (
        f"**Millrace has a change** ({_files(proposal.change.files)}) and checks it on a fresh checkout: "
        f"{_said(proposal.title)}"
    )


def question(asked: f.QuestionAsked) -> str:
    """The run is parked."""
    return (
        "**Millrace has a question.** Answer it in a comment below; "
        "the work then goes on where it stopped.\n\n" + outbound.markdown(asked.question, web=WEB)
    )


def pull_request_is_open(opened: f.PullRequestOpened, seen: f.VerificationFinished) -> str:
    """The best end."""
    kind = "draft pull request" if opened.draft else "pull request"
    return f"**Millrace opened a {kind}: {opened.url}**\n\n{_verdict(seen)}"


def answered(answer: f.AnswerGiven) -> str:
    """An answer without a change."""
    return outbound.markdown(answer.text, web=WEB) + "\n\n<sub>Answered by Millrace without a change.</sub>"


def unchanged(proposal: f.SolutionProposed) -> str:
    """Work without a difference."""
    said = outbound.markdown(proposal.summary, web=WEB, limit=20_000)
    first = "**Millrace ended without a change:** nothing in the repository differs from before."
    return f"{first}\n\n{said}".strip()


def failed(
    failure: f.RunFailed, turn: f.TurnTaken | None, cost: int, left: f.CommitPublished | None = None
) -> str:
    """A truthful end without a result."""
    turns = "1 turn" if turn and turn.turn == 1 else f"{turn.turn if turn else 0} turns"
    tried = f"It took {turns} ({_dollars(cost)})." if turn else "The work had not begun."
    return (
        f"**Millrace could not finish this.** {_said(failure.why, limit=2000)}\n\n"
        f"{tried} It ended in the stage *{failure.stage}* ({outbound.code(failure.kind)}). {_left(left)}"
        "Comment `/millrace` to try again."
    )


def refused(seen: f.VerificationFinished, proposal: f.SolutionProposed) -> str:
    """A change that may not be published."""
    names = ", ".join(outbound.code(file.path) for file in seen.files[:20])
    return (
        f"**Millrace made a change but does not publish it:** "
        f"{_said(seen.reason, limit=2000)}\n\n"
        f"{outbound.markdown(proposal.summary, web=WEB, limit=10_000)}"
        + (f"\n\nFiles: {names}" if names else "")
    )


def cancelled(fact: f.RunCancelled, left: f.CommitPublished | None = None) -> str:
    """Stopped by a person."""
    return f"**Millrace stopped:** {_said(fact.why)} ({_said(fact.by.login)}). {_left(left)}".rstrip()


def commit_message(request: f.RunRequested, proposal: f.SolutionProposed) -> str:
    """Subject and body; the trailer that names the run is added where the commit is made."""
    parts = (pull_request_title(request, proposal, limit=72), outbound.commit_text(proposal.summary))
    return "\n\n".join((*filter(None, parts), f"For issue {request.issue.number}."))


def pull_request_title(request: f.RunRequested, proposal: f.SolutionProposed, *, limit: int = 200) -> str:
    """One line."""
    return outbound.line(proposal.title, limit=limit) or f"Change for issue {request.issue.number}"


def pull_request_body(
    request: f.RunRequested, proposal: f.SolutionProposed, seen: f.VerificationFinished
) -> str:
    """The issue once, what changed, and what Millrace itself saw."""
    parts = [f"Fixes #{request.issue.number}", outbound.markdown(proposal.summary, web=WEB, limit=20_000)]
    if proposal.note:
        parts.append(f"> **Note:** {_said(proposal.note)}")
    parts.append("## Evidence\n\n" + _evidence(seen))
    if proposal.claims:
        claims = "\n".join(f"- {_said(each)}" for each in proposal.claims[:20])
        parts.append(f"## What the agent says it checked\n\nIts own words, not evidence:\n\n{claims}")
    if seen.files:
        listed = "\n".join(f"- {file.status} {outbound.code(file.path)}" for file in seen.files[:SHOWN])
        more = f"\n- and {len(seen.files) - SHOWN} more" if len(seen.files) > SHOWN else ""
        parts.append(
            f"<details><summary>{_files(len(seen.files))} changed</summary>\n\n{listed}{more}\n</details>"
        )
    parts.append("<sub>Made by Millrace. A person should read it before it is merged.</sub>")
    return "\n\n".join(part for part in parts if part)


def _evidence(seen: f.VerificationFinished) -> str:
    tree = f"`{seen.change.tree}`"
    if not seen.checks:
        first = "**Untested.** No way to run this project's tests was recognised,"
        return f"{first} so nothing was run on tree {tree}."
    lines = [
        f"Run by Millrace in a fresh sandbox without network, on exactly the published tree {tree}:",
        "",
        "| command | exit code | time | tree |",
        "|---|---|---|---|",
        *(_row(check) for check in seen.checks),
        *(_row(check, " (unchanged base)") for check in seen.base_checks),
    ]
    if seen.verdict == "failed":
        before = [check.exit_code for check in seen.base_checks]
        lines += ["", "**The tests fail.** " + _compared(before)]
    for check in seen.checks:
        lines += [
            "",
            f"<details><summary>Output of {outbound.markup(check.command)}</summary>",
            "",
            outbound.verbatim(check.output),
            "</details>",
        ]
    return "\n".join(lines)


def _row(check: Check, note: str = "") -> str:
    code = "timed out" if check.exit_code is None else str(check.exit_code)
    command = outbound.code(check.command).replace("|", "\\|")  # a bar would end the cell
    return f"| {command}{note} | {code} | {check.seconds:.1f} s | `{check.tree[:12]}` |"


def _compared(before: list[int | None]) -> str:
    if not before:
        return "How the base does is not known."
    if all(code == 0 for code in before):
        return "They pass on the unchanged base."
    return "They fail on the unchanged base as well."


def _verdict(seen: f.VerificationFinished) -> str:
    if not seen.checks:
        return "It is untested: no way to run this project's tests was recognised."
    command = outbound.code(seen.checks[0].command)
    if seen.verdict == "passed":
        return f"{command} passes on exactly that tree."
    return f"{command} **fails** on that tree; the pull request shows its output."


def _doing(block: dict[str, object]) -> str:
    given = block.get("input")
    values = given if isinstance(given, dict) else {}
    match block.get("name"):
        case "bash" if not values.get("command"):
            return "starts a new shell"
        case "bash" | "Bash":
            return f"runs {outbound.code(str(values.get('command', '')), limit=120)}"
        case "str_replace_based_edit_tool":
            verb = "reads" if values.get("command") == "view" else "edits"
            return f"{verb} {outbound.code(str(values.get('path', '')), limit=120)}"
        case "Read":
            return f"reads {outbound.code(str(values.get('file_path', '')), limit=120)}"
        case "Edit" | "Write":
            return f"edits {outbound.code(str(values.get('file_path', '')), limit=120)}"
        case "submit":
            return "hands its change in"
        case "ask":
            return "has a question"
    return "works"


def _said(text: str, *, limit: int = 500) -> str:
    return outbound.sentence(text, web=WEB, limit=limit)


def _left(commit: f.CommitPublished | None) -> str:
    return f"The change is on the branch {outbound.code(commit.branch)}. " if commit else ""


def _dollars(cost: int) -> str:
    return f"${cost / 1_000_000:.2f}"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
