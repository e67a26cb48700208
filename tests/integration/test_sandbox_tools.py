"""The two tools in a real container: what a command sees, keeps, and cannot outlive."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from contracts.tools import ToolCall, ToolResult
from services.sandbox_runner.sandbox import SandboxGone
from tests.integration.sandbox_kit import Bench, Open, bench

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("bench")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(place: Bench) -> AsyncIterator[Open]:
    async with place.open() as opened:
        yield opened


async def test_the_base_lies_in_the_workspace_and_git_calls_it_clean(box: Open, place: Bench) -> None:
    result = await box.bash("git status --short && git rev-parse HEAD && git log --format=%s")
    assert result.content.split() == [place.base, "first"]
    assert result.exit_code == 0


async def test_directory_variables_and_functions_stay_from_call_to_call(box: Open) -> None:
    await box.bash(r"""cd docs; here=$'a "b\'\n c'; export there=2; greet() { echo "hi $1"; }""")
    result = await box.bash('pwd; echo "$here|$there"; greet you; bash -c "echo \\$there"')
    assert result.content == "/workspace/docs\na \"b'\n c|2\nhi you\n2\n"
    await box.bash("cd /workspace")


async def test_a_command_that_exits_or_fails_to_parse_keeps_what_was_set_before(box: Open) -> None:
    await box.bash("kept=yes")
    assert (await box.bash("set -e; cd docs; false; echo never")).exit_code == 1
    broken = await box.bash("if then")
    assert broken.exit_code != 0
    assert "syntax error" in broken.content
    assert (await box.bash("echo $kept; cd /workspace")).content == "yes\n"


async def test_a_command_of_any_length_runs_and_errors_name_its_own_lines(box: Open) -> None:
    long = "# filler\n" * 40_000 + "echo done; cd docs; moved=1"
    assert (await box.bash(long)).content == "done\n"
    assert (await box.bash("pwd; echo $moved; cd /workspace")).content == "/workspace/docs\n1\n"
    assert "line 2: nothing_here: command not found" in (await box.bash("true\nnothing_here")).content
    assert (await box.bash("# only a comment")).content == ""
    assert (await box.bash("cat <<EOF\nhere $((1 + 1))\nEOF")).content == "here 2\n"
    assert (await box.bash("echo '\ud800'")).content == "?\n"


async def test_the_exit_code_is_told_to_the_model_and_kept_as_data(box: Open) -> None:
    result = await box.bash("echo out; echo err >&2; exit 7")
    assert result.content == "out\nerr\n[exit code 7]"
    assert (result.exit_code, result.is_error) == (7, False)


async def test_a_timeout_kills_the_command_and_the_daemons_it_left(box: Open) -> None:
    result = await box.bash("(setsid nohup sleep 4242 >/dev/null 2>&1 &); sleep 4243 | cat", seconds=1.0)
    assert result.is_error
    assert result.exit_code is None
    assert "stopped after 1 s" in result.content
    assert (await box.bash("pgrep -f 'sleep 424[23]' | wc -l")).content.strip() == "0"


async def test_a_background_process_lives_on_and_its_output_blocks_nobody(box: Open) -> None:
    noise = "(exec -a noisy bash -c 'while :; do echo noise; done')"
    started = await box.bash(f"{noise} & echo started", seconds=20)
    assert started.content.startswith("started") or "noise" in started.content
    assert started.exit_code == 0
    assert (await box.bash("pgrep -fc ^noisy")).content.strip() == "1"
    restarted = await box.sandbox.call(_restart("after-noise"))
    assert not restarted.is_error
    assert (await box.bash("pgrep -fc ^noisy")).content.strip() == "0\n[exit code 1]"


async def test_long_output_keeps_head_and_tail_and_counts_the_rest(box: Open) -> None:
    result = await box.bash("echo first; head -c 200000000 /dev/zero | tr '\\0' x; echo; echo last")
    assert result.content.startswith("first\nxxx")
    assert result.content.endswith("xxx\nlast\n")
    assert len(result.content) < 40_000
    assert result.omitted > 199_000_000
    assert f"[... {result.omitted} bytes omitted ...]" in result.content


async def test_escape_sequences_are_data_and_invalid_utf8_is_replaced(box: Open) -> None:
    result = await box.bash(r"printf '\033[31mred\033]8;;x\007 \xff\xfe \0 end'")
    assert result.content == "\x1b[31mred\x1b]8;;x\x07 \ufffd\ufffd \0 end"


async def test_calls_run_side_by_side(box: Open) -> None:
    await box.bash("rm -f /tmp/a /tmp/b; mkfifo /tmp/a")
    waiting = asyncio.create_task(box.bash("cat /tmp/a"))  # ends only when the second call writes
    await box.bash("echo met > /tmp/a")
    assert (await waiting).content == "met\n"


async def test_the_same_id_runs_once_also_while_it_is_running(box: Open) -> None:
    command = "echo run >> /tmp/count; sleep 0.5; wc -l < /tmp/count"
    first, second = await asyncio.gather(box.bash(command, call="same"), box.bash(command, call="same"))
    third = await box.bash(command, call="same")
    assert first == second == third
    assert first.content.strip() == "1"


async def test_a_cancelled_call_ends_with_everything_it_started(box: Open) -> None:
    running = asyncio.create_task(box.bash("echo begun; sleep 5151 & sleep 5151", call="cancel-me"))
    await box.bash("until [ \"$(pgrep -fc '^sleep 5151')\" = 2 ]; do sleep 0.05; done")
    await box.sandbox.cancel("cancel-me")
    result = await running
    assert result.is_error
    assert "cancelled" in result.content
    assert (await box.bash("pgrep -fc '^sleep 5151' || true")).content.strip() == "0"


async def test_the_editor_views_creates_replaces_and_inserts(box: Open) -> None:
    listing = await box.edit("view", "/workspace")
    assert "/workspace/docs/read.me" in listing.content
    assert ".git/" not in listing.content
    await box.edit("create", "/workspace/new/file.py", file_text="a = 1\nb = 2\nb = 2\n")
    assert (await box.edit("view", "new/file.py", view_range=[1, 1])).content == "     1\ta = 1"
    twice = await box.edit("str_replace", "new/file.py", old_str="b = 2", new_str="c")
    assert twice.is_error
    assert "lines 2, 3" in twice.content
    await box.edit("str_replace", "new/file.py", old_str="a = 1\nb", new_str="a = 9\nb")
    await box.edit("insert", "new/file.py", insert_line=0, insert_text="# top")
    assert (await box.bash("cat new/file.py")).content == "# top\na = 9\nb = 2\nb = 2\n"
    missing = await box.edit("str_replace", "new/file.py", old_str="zzz", new_str="")
    assert missing.is_error


async def test_the_editor_does_not_leave_the_workspace(box: Open) -> None:
    await box.bash("ln -s /etc/passwd secret; mkfifo pipe; head -c 100 /dev/zero > zero")
    for path in ("/etc/passwd", "../etc/passwd", "secret", "/proc/self/environ"):
        result = await box.edit("view", path)
        assert result.is_error, path
        assert "outside" in result.content
    assert "not a regular file" in (await box.edit("view", "pipe")).content
    assert "binary" in (await box.edit("view", "zero")).content
    assert (await box.edit("create", "secret", file_text="x")).is_error
    await box.bash("rm secret pipe zero")


async def test_names_that_are_not_text_can_be_listed_and_encoded(box: Open) -> None:
    await box.bash("touch $'caf\\xe9'")
    listed = await box.edit("view", ".")
    assert "/workspace/caf" in listed.content
    assert msgspec.json.decode(msgspec.json.encode(listed), type=ToolResult) == listed
    asked = await box.edit("view", "\ud800")
    assert asked.is_error
    msgspec.json.encode(asked)
    await box.bash("rm caf*")


async def test_an_unknown_tool_and_wrong_arguments_are_told_to_the_model(box: Open) -> None:
    assert (await box.edit("fly", "x")).is_error
    assert (await box.edit("view", "nowhere")).is_error
    assert (await box.edit("create", "x")).is_error
    assert (await box.edit("view", "calc.py", view_range=[9, 12])).is_error
    assert (await box.edit("insert", "calc.py", insert_line=99, insert_text="x")).is_error


async def test_the_end_of_the_container_is_noticed_at_once(place: Bench) -> None:
    async with place.open() as opened:
        running = asyncio.create_task(opened.bash("sleep 100", seconds=90))
        await opened.bash("true")
        await place.host.api.remove(opened.ready.container)
        with pytest.raises(SandboxGone):
            async with asyncio.timeout(20):
                await running
        with pytest.raises(SandboxGone):
            await opened.bash("true")


def _restart(call: str) -> ToolCall:
    return ToolCall(id=call, name="bash", input={"restart": True})
