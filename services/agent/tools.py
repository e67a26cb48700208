"""The tools that the model is offered. Pure."""

from typing import Any

BASH = {"type": "bash_20250124", "name": "bash"}
EDITOR = {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool", "max_characters": 20000}
ASK = {
    "name": "ask",
    "description": (
        "Ask the people on the issue one question and wait for their answer, which may take days. Only for "
        "what the repository and the issue cannot tell and a wrong guess would make worthless."
    ),
    "input_schema": {
        "type": "object",
        "properties": {"question": {"type": "string", "description": "One question, in Markdown."}},
        "required": ["question"],
    },
}
SUBMIT = {
    "name": "submit",
    "description": (
        "Hand in the change in /workspace as it is now. It is checked on a fresh checkout; if the tests fail "
        "there, you get their output and can go on. Call it alone, once the work is done."
    ),
    "input_schema": {
        "type": "object",
        "properties": {
            "title": {"type": "string", "description": "Title of the pull request, imperative, one line."},
            "summary": {"type": "string", "description": "What was wrong, what changed and why. Markdown."},
            "verified": {
                "type": "array",
                "items": {"type": "string"},
                "description": "What you checked, and how.",
            },
        },
        "required": ["title", "summary"],
    },
}

TOOLS: tuple[dict[str, Any], ...] = (BASH, EDITOR, ASK, SUBMIT)
IN_SANDBOX = frozenset({"bash", "str_replace_based_edit_tool"})
EVERYWHERE = IN_SANDBOX | {"ask", "submit"}
