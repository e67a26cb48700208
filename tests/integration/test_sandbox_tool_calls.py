"""What the tool protocol promises in a real container: once, in parallel, to its end, over a reconnect."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from contracts.tools import ToolCall
from services.kit.errors import Later
from services.sandbox_runner.answers import Answer
from services.sandbox_runner.channel import Channel, Listener
from services.sandbox_runner.sandbox import SandboxGone
from services.sandbox_runner.toolserver.calls import FORGOTTEN, REMEMBERED
from services.sandbox_runner.toolserver.processes import descendants
from tests.integration.sandbox_kit import Bench, Open, bench

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

# Each leaves a process that a plain kill of the command's group, session or parent would not find.
DAEMONS = {
    "in the background": "sleep 7070 &",
    "in a session of its own": "setsid sleep 7070 &",
    "twice forked": "( (setsid sleep 7070 &) & )",
    "without an environment": "(env -i /usr/bin/setsid /usr/bin/sleep 7070 &)",
    "with everything closed": "(setsid bash -c 'cd /; exec sleep 7070' 0<&- 1>&- 2>&- 253>&- &)",
    "as Python's daemons do": (
        "python3 -c 'import os\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
        'os.closerange(0, 300); os.execv("/usr/bin/sleep", ["sleep", "7070"])\''
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("bench")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(place: Bench) -> AsyncIterator[Open]:
    async with place.open() as opened:
        yield opened


def channel(box: Open) -> Channel:
    assert box.sandbox._box is not None
    return box.sandbox._box.channel


def bash(command: str, seconds: float = 30.0) -> dict[str, Any]:
    return {"op": "bash", "input": {"command": command}, "seconds": seconds, "head": 1000, "tail": 1000}


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def count(box: Open, pattern: str) -> int:
    return int((await box.bash(f"pgrep -fc '{pattern}' || true")).content)


async def until(box: Open, pattern: str, wanted: int) -> None:
    """Wait inside, so that nothing here waits for time."""
    loop = f"until [ \"$(pgrep -fc '{pattern}')\" = {wanted} ]; do sleep 0.02; done"
    assert (await box.bash(loop)).exit_code == 0


@pytest.mark.parametrize("how", DAEMONS)
async def test_a_timeout_ends_what_a_command_left(box: Open, how: str) -> None:
    result = await box.bash(f"{DAEMONS[how]}\nsleep 60", seconds=1.5)
    assert (result.is_error, result.exit_code) == (True, None)
    assert await count(box, "sleep 7070") == 0


@pytest.mark.parametrize("how", DAEMONS)
async def test_a_cancellation_ends_what_a_command_left(box: Open, how: str) -> None:
    call = uuid.uuid4().hex
    running = asyncio.create_task(box.bash(f"{DAEMONS[how]}\nsleep 60", call=call))
    await until(box, "sleep 7070", 1)
    await box.sandbox.cancel(call)
    result = await running
    assert result.is_error
    assert "cancelled" in result.content
    assert await count(box, "sleep 7070") == 0


async def test_a_timeout_leaves_the_daemons_of_other_commands_alone(box: Open) -> None:
    await box.bash("(env -i /usr/bin/setsid /usr/bin/sleep 8080 &)")
    begun = "(setsid sleep 8081 >/dev/null 2>&1 &); mkfifo /tmp/go; cat /tmp/go"
    parallel = asyncio.create_task(box.bash(begun))
    await until(box, "sleep 8081", 1)
    late = await box.bash("(setsid sleep 8082 &); sleep 60", seconds=1.0)
    assert "stopped after 1 s" in late.content
    assert (await box.bash("pgrep -fa 'sleep 808' | cut -d' ' -f2-")).content.split("\n")[:-1] == [
        "/usr/bin/sleep 8080",
        "sleep 8081",
    ]
    await box.bash("echo went on > /tmp/go")
    assert (await parallel).content == "went on\n"
    await box.bash("pkill -f 'sleep 808'")


async def test_thirty_commands_run_at_once_and_each_gets_its_own_output(box: Open) -> None:
    waiting = "mkfifo /tmp/gate$i 2>/dev/null; read -r word < /tmp/gate$i; echo $i $word"
    calls = [asyncio.create_task(box.bash(f"i={i}; {waiting}")) for i in range(30)]
    opened = await box.bash(
        "for i in {0..29}; do until [ -p /tmp/gate$i ]; do :; done; echo go >/tmp/gate$i; done"
    )
    assert opened.exit_code == 0
    assert [result.content for result in await asyncio.gather(*calls)] == [f"{i} go\n" for i in range(30)]


async def test_a_command_too_many_is_refused_and_the_others_end(box: Open) -> None:
    await box.bash("rm -f /tmp/hold; mkfifo /tmp/hold")
    calls = [asyncio.create_task(box.bash("read -r x < /tmp/hold; echo done")) for _ in range(80)]
    refused = await next(asyncio.as_completed(calls))
    assert "64 commands are running already" in refused.content
    await channel(box).ping(5)
    assert not (await box.edit("view", "calc.py")).is_error
    await box.sandbox.call(ToolCall(id=uuid.uuid4().hex, name="bash", input={"restart": True}))
    ends = [result.exit_code for result in await asyncio.gather(*calls)]
    assert ends.count(137) == 64
    assert (await box.bash("echo free")).content == "free\n"


async def test_a_runner_that_died_finds_answers_and_running_commands_again(place: Bench) -> None:
    async with place.open() as box:
        first = channel(box)
        await first.ask(
            "answered", bash("echo once >> /tmp/log; cat /tmp/log; cd docs; kept=1"), Answer, seconds=30
        )
        meanwhile = bash("echo begun >> /tmp/log; mkfifo /tmp/end; cat /tmp/end; cat /tmp/log")
        running = asyncio.create_task(first.ask("running", meanwhile, Answer, seconds=30))
        await box.bash("until grep -q begun /tmp/log && [ -p /tmp/end ]; do sleep 0.02; done")
        await first.close()
        with pytest.raises(SandboxGone):
            await running
        second = await reconnect(place, box)
        again, _ = await second.ask("answered", bash("echo twice >> /tmp/log"), Answer, seconds=30)
        assert again.content == "once\n"
        waiting = asyncio.create_task(second.ask("running", meanwhile, Answer, seconds=30))
        state, _ = await second.ask("new", bash("pwd; echo $kept; echo end > /tmp/end"), Answer, seconds=30)
        assert state.content == "/workspace/docs\n1\n"
        answer, _ = await waiting
        assert answer.content == "end\nonce\nbegun\n"
        unasked = asyncio.create_task(second.ask("hold", bash("sleep 0.5; echo late"), Answer, seconds=30))
        await second.ping(5)
        await second.close()
        with pytest.raises(SandboxGone):
            await unasked
        third = await reconnect(place, box)
        await third.ask("wait", bash("sleep 1"), Answer, seconds=30)  # the answer nobody asked for comes now
        await third.ping(5)
        late, _ = await third.ask("hold", bash("echo never"), Answer, seconds=30)
        assert late.content == "late\n"
        await third.close()


async def test_a_call_whose_answer_had_to_make_room_is_not_run_again(place: Bench) -> None:
    async with place.open() as box:
        await box.bash("echo ran >> /tmp/runs", call="old")
        for i in range(REMEMBERED):
            await channel(box).ask(f"fill/{i}", {"op": "edit", "input": {}}, Answer, seconds=30)
        again = await box.bash("echo ran >> /tmp/runs", call="old")
        assert again.is_error
        assert again.content == FORGOTTEN
        assert (await box.bash("cat /tmp/runs")).content == "ran\n"


async def test_a_process_of_the_sandbox_cannot_take_the_channel_of_a_later_runner(place: Bench) -> None:
    async with place.open() as box:
        thief = (
            "import socket, time\n"
            'text = b\'{"op":"hello","version":1}\'\n'
            "while True:\n"
            "    s = socket.socket(socket.AF_UNIX)\n"
            "    try:\n"
            "        s.connect('/run/channel/s'); s.sendall(bytes([0, 0, 0, len(text), 0, 0, 0, 0]) + text)\n"
            "        print('connected', flush=True); s.recv(1)\n"
            "    except OSError: pass\n"
            "    time.sleep(0.001)\n"
        )
        await box.edit("create", "thief.py", file_text=thief)
        await box.bash("nohup python3 thief.py >/tmp/thief 2>&1 & sleep 0.3")
        await channel(box).close()
        again = await reconnect(place, box)
        seen, _ = await again.ask("seen", bash("cat /tmp/thief; pkill -f thief.py"), Answer, seconds=30)
        assert seen.ok
        await again.close()


async def reconnect(place: Bench, box: Open) -> Channel:
    """What another runner does: listen where the sandbox looks, for its first process only."""
    assert box.sandbox._box is not None
    listener = Listener(place.host.channel_directory(box.sandbox._box.name))
    made = await listener.accept(10, pid=channel(box).peer_pid)
    await made.hello(10)
    return made


async def test_a_socket_that_nobody_comes_to_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(Later):
        await Listener(tmp_path).accept(0.1)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "deed",
    [
        "pkill -9 bash",
        "kill -9 -1",
        "kill -STOP -1",
        "kill -HUP -1; kill -TERM -1",
        "killall5 2>/dev/null; pkill .",
    ],
)
async def test_whatever_a_command_does_to_all_processes_the_next_one_runs(box: Open, deed: str) -> None:
    await box.bash(deed, seconds=2.0)
    assert (await box.bash("echo next")).content == "next\n"
    assert (await box.bash("echo and next")).content == "and next\n"


async def test_a_command_sees_what_bash_gives_it_anywhere(box: Open) -> None:
    seen = await box.bash(
        'echo "$0 $# $- $BASH_EXECUTION_STRING"; cat; readlink /proc/self/fd/0; jobs; echo $PPID'
    )
    assert seen.content.split("\n")[0].startswith("bash 0 hBc echo")
    assert seen.content.split("\n")[1:3] == ["/dev/null", "1"]
    open_files = (await box.bash("ls /proc/self/fd")).content.split()
    assert set(open_files) <= {"0", "1", "2", "3", "253"}
    await box.bash("unset PAGER; export LANG=C; shopt -s nullglob; readonly fixed=1; declare -A map=([a]=1)")
    kept = await box.bash('echo "${PAGER-unset} $LANG ${map[a]} $fixed"')
    assert kept.content == "unset C 1 1\n"
    await box.sandbox.call(ToolCall(id=uuid.uuid4().hex, name="bash", input={"restart": True}))
    assert (await box.bash("echo $PAGER $LANG ${map[a]}")).content == "cat C.UTF-8\n"


async def test_a_trap_on_exit_runs_and_the_state_is_kept(box: Open) -> None:
    first = await box.bash("trap 'echo bye' EXIT; cd docs; kept=trap; (exit 3)")
    assert (first.content, first.exit_code) == ("bye\n[exit code 3]", 3)
    assert (await box.bash("pwd; echo $kept; cd /workspace")).content == "/workspace/docs\ntrap\n"


async def test_a_directory_that_is_gone_is_told(box: Open) -> None:
    await box.bash("mkdir -p /tmp/gone/deep; cd /tmp/gone/deep; rm -rf /tmp/gone")
    assert (await box.bash("pwd")).content == (
        "[/tmp/gone/deep is gone; the working directory is now /workspace]\n/workspace\n"
    )
    await box.bash("mkdir -p /tmp/later; cd /tmp/later")
    await box.bash("rmdir /tmp/later")
    assert (await box.bash("pwd")).content.endswith("/workspace\n")


async def test_a_state_that_is_too_large_is_told_and_the_one_before_stays(box: Open) -> None:
    await box.bash("small=1")
    told = await box.bash("large=$(head -c 2000000 /dev/zero | tr '\\0' x); small=2")
    assert "not kept for the next command" in told.content
    assert (await box.bash('echo "$small ${#large}"')).content == "1 0\n"


async def test_functions_named_like_builtins_do_not_break_the_next_command(box: Open) -> None:
    await box.bash('cd() { command cd "$@" && ls >/dev/null; }; read() { echo no; }; printf() { echo no; }')
    assert (await box.bash("cd docs; command pwd; type -t cd")).content == "/workspace/docs\nfunction\n"
    assert (await box.bash("command pwd")).content == "/workspace/docs\n"
    await box.sandbox.call(ToolCall(id=uuid.uuid4().hex, name="bash", input={"restart": True}))


async def test_three_hundred_commands_leave_no_descriptor_and_no_process(place: Bench) -> None:
    async with place.open() as box:
        pid = channel(box).peer_pid
        await box.bash("true")
        before = descriptors(pid)
        for i in range(100):
            await box.bash("echo x; (exit 3)")
            await box.bash("sleep 9 & disown" if i % 10 == 0 else ":")
            await box.edit("view", "calc.py")
        await box.bash("pkill sleep; true")
        await box.bash("true")
        assert descriptors(pid) <= before + 2
        assert len(descendants(pid)) <= 1  # the spare
