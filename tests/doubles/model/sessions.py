"""Scripts for common conversations."""

from collections.abc import Sequence

from tests.doubles.model.script import Block, Say, Script, Use

EDITOR = "str_replace_based_edit_tool"


def submit(title: str, summary: str, *verified: str) -> Use:
    """The end of a piece of work."""
    return Use("submit", {"title": title, "summary": summary, "verified": list(verified)})


def fix_bug(
    *,
    path: str,
    old: str,
    new: str,
    test_command: str,
    title: str,
    summary: str,
    search: str = "def ",
) -> Script:
    """Looks around, sees the test fail, mends one place, sees it pass, submits."""
    return (
        (
            Say("I'll look at the repository and find the code the issue is about."),
            Use("bash", {"command": "git log --oneline | head -5; ls -R . | grep -v pyc | head -40"}),
            Use("bash", {"command": f"rg -n '{search}' --type py . || true"}),
        ),
        (Say(f"The code is in `{path}`."), Use(EDITOR, {"command": "view", "path": f"/workspace/{path}"})),
        (
            Say("Before I change anything, I run the tests to see the failure myself."),
            Use("bash", {"command": f"{test_command} 2>&1 | tail -25"}),
        ),
        (
            Say("The failure matches the issue. This is the cause; I change this place only."),
            Use(
                EDITOR,
                {"command": "str_replace", "path": f"/workspace/{path}", "old_str": old, "new_str": new},
            ),
        ),
        (
            Say("Now the whole suite again."),
            Use("bash", {"command": f"{test_command} 2>&1 | tail -5 && git diff --stat"}),
        ),
        (
            Say("All tests pass. I submit the change."),
            submit(title, summary, f"`{test_command}` fails before the change and passes after it"),
        ),
    )


def answer_only(text: str) -> Script:
    """An answer without a tool."""
    return ((Say(text),),)


def obey(commands: Sequence[str], *, title: str = "Do as told", summary: str = "Done.") -> Script:
    """Runs whatever it is told to, then submits: containment is proven, not virtue."""
    steps = [(Say(f"Running: {command[:60]}"), Use("bash", {"command": command})) for command in commands]
    return (*steps, (submit(title, summary),))


def ask_first(question: str, then: Script) -> Script:
    """Asks a question before the rest."""
    return ((Say("I need to know one thing."), Use("ask", {"question": question})), *then)


def for_claude_code(script: Script) -> Script:
    """The same script in the words of Claude Code's tools; ``submit`` becomes its last message."""
    return tuple([_in_its_words(block) for block in step] for step in script if not callable(step))


def _in_its_words(block: Block) -> Block:
    match block:
        case Use(name="bash", input={"command": command}):
            return Use("Bash", {"command": command, "description": "As the script says"})
        case Use(name="str_replace_based_edit_tool", input={"command": "view", "path": path}):
            return Use("Read", {"file_path": path})
        case Use(
            name="str_replace_based_edit_tool", input={"command": "create", "path": path, "file_text": text}
        ):
            return Use("Write", {"file_path": path, "content": text})
        case Use(
            name="str_replace_based_edit_tool",
            input={"command": "str_replace", "path": path, "old_str": old, "new_str": new},
        ):
            return Use(
                "Edit", {"file_path": path, "old_string": old, "new_string": new, "replace_all": False}
            )
        case Use(name="submit", input={"title": title, "summary": summary, "verified": verified}):
            claims = "\n".join(f"- {claim}" for claim in verified)
            return Say(f"{title}\n\n{summary}\n\nVerified:\n{claims}")
        case Use(name=name):
            raise ValueError(f"Claude Code has no tool for {name} with this input")
        case _:
            return block
