"""How Claude Code is started in a sandbox, and how it is given back what a run recorded. Pure.

Its own session file is not kept: it is written anew from the facts of the run, so that a replacement agent
or sandbox needs nothing but the log. Measured with 2.1.332: of a session file only the lines of type
``user`` and ``assistant`` are needed, with ``uuid``, ``parentUuid`` and ``sessionId``.
"""

import shlex
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import msgspec

from contracts.engine import LAUNCHER
from contracts.envelope import derive_id
from services.agent.engine_words import RESUME, SYSTEM
from services.agent.prompt import GO_ON, MAX_OUTPUT, reply, said_again, task
from services.agent.state import Work, cut_short, tool_uses

TOOLS = "Bash,Edit,Glob,Grep,Read,Write"
"""No agents of its own, nothing that needs a network, nothing that waits: one conversation, step by step."""
COMMAND_SECONDS = 300
"""How long one of its commands may take."""
_FOLDER = "$HOME/.claude/projects/-workspace"  # it derives the name from the working directory
_PROMPT = "$HOME/.millrace-prompt"
_PIECE = 200_000
_WHEN = "2026-01-01T00:00:00.000Z"


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """Commands for the sandbox's bash, in order: ``files`` end at once, ``command`` is the engine."""

    files: tuple[str, ...]
    command: str


def engine_name(run: str, generation: int, attempt: int) -> str:
    """The id under which an engine runs: asking for it again finds the one that runs already."""
    return f"{run}-engine-{generation}-{attempt}"


def invocation(work: Work, name: str, model: str) -> Invocation:
    """How to start the engine so that it goes on where the facts end."""
    session = _uuid(name)
    messages, prompt = transcript(work)
    files = list(_file(_PROMPT, prompt.encode()))
    if messages:
        lines = b"".join(
            msgspec.json.encode(line) + b"\n" for line in session_lines(messages, session, model)
        )
        files += _file(f"{_FOLDER}/{session}.jsonl", lines)
    begin = ["--resume", session] if messages else ["--session-id", session]
    words = [
        *LAUNCHER, "ANTHROPIC_BASE_URL", "--", "claude", "--print", *begin, "--model", model,
        "--tools", TOOLS, "--output-format", "json", "--dangerously-skip-permissions",
        # What a repository or an earlier command can put in its way is not read: settings with hooks and
        # variables, MCP servers, instructions, plugins, commands.
        "--safe-mode", "--setting-sources=", "--strict-mcp-config", "--disable-slash-commands",
        "--settings", '{"attribution":{"commit":"","pr":""}}',
        "--append-system-prompt", SYSTEM,
    ]  # fmt: skip
    variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment(model).items())
    # A child, not exec: the shell's end is the call's end, and a missing python3 has an exit code.
    command = f"cd /workspace && {variables} {shlex.join(words)} < {_PROMPT}"
    return Invocation(files=tuple(files), command=command)


def environment(model: str) -> dict[str, str]:
    """Variables of the engine: no traffic but the model's, all of it for one model, no key."""
    return {
        "ANTHROPIC_API_KEY": "the-sandbox-has-none",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
        "ANTHROPIC_SMALL_FAST_MODEL": model,
        "API_TIMEOUT_MS": "14400000",
        "BASH_DEFAULT_TIMEOUT_MS": str(COMMAND_SECONDS * 1000),
        "BASH_MAX_TIMEOUT_MS": str(COMMAND_SECONDS * 1000),
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(MAX_OUTPUT),
        # An answer comes whole, once it is recorded: Claude Code hangs up after 360 s of silence otherwise.
        "CLAUDE_STREAM_FIRST_BYTE_TIMEOUT_MS": "14400000",
        "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "14400000",
        "DISABLE_AUTOUPDATER": "1",
        # A summary of the conversation would look like its end; our own loop has none either.
        "DISABLE_COMPACT": "1",
        "IS_SANDBOX": "1",
    }


def transcript(work: Work) -> tuple[list[dict[str, Any]], str]:
    """The conversation as far as it is settled, and the prompt that comes next.

    The last turn is left out while results of its tools are missing: its answer is given again.
    """
    batches = {batch.turn: batch for batch in work.batches}
    told = {follow_up.turn: follow_up.text for follow_up in work.follow_ups}
    messages: list[dict[str, Any]] = []
    prompt = task(work)
    for turn in work.steps:
        if tool_uses(turn) and turn.turn not in batches:
            break
        if prompt:
            messages.append({"role": "user", "content": prompt})
        messages.append({"role": "assistant", "content": said_again(turn)})
        if tool_uses(turn):
            messages.append({"role": "user", "content": reply(work, turn, batches[turn.turn])})
            prompt = ""
        else:
            prompt = told.get(turn.turn) or (GO_ON if cut_short(turn) else RESUME)
    return messages, prompt or RESUME


def session_lines(messages: list[dict[str, Any]], session: str, model: str) -> Iterator[dict[str, Any]]:
    """The lines of a session file."""
    parent = None
    for number, message in enumerate(messages):
        line = _uuid(session, number)
        whole = dict(message)
        if message["role"] == "assistant":
            uses = any(block.get("type") == "tool_use" for block in message["content"])
            whole |= {
                "id": f"msg_{line.replace('-', '')[:24]}",
                "type": "message",
                "model": model,
                "stop_reason": "tool_use" if uses else "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 0, "output_tokens": 0},
            }
        yield {
            "parentUuid": parent,
            "isSidechain": False,
            "type": message["role"],
            "message": whole,
            "uuid": line,
            "timestamp": _WHEN,
            "cwd": "/workspace",
            "sessionId": session,
            "userType": "external",
        }
        parent = line


def _file(path: str, data: bytes) -> Iterator[str]:
    """Commands that write a file, in pieces that fit into messages."""
    for at in range(0, len(data) or 1, _PIECE):
        begin = f'mkdir -p "$(dirname "{path}")" && ' if at == 0 else ""
        mode = ">" if at == 0 else ">>"
        text = b64encode(data[at : at + _PIECE]).decode()
        yield f"{begin}base64 -d {mode} \"{path}\" <<'END'\n{text}\nEND"


def _uuid(*cause: str | int) -> str:
    """A UUID (RFC 9562, version 8: of our own making) derived from its cause."""
    text = derive_id(*cause)
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-8{text[17:20]}-{text[20:]}"
