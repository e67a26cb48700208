"""What leaves a sandbox: bytes that the host recomputed, and nothing of the sandbox's git."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from contracts.change import Change, decode_change, encode_change
from services.kit.errors import Refused
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.sandbox import CheckResult
from tests.integration.sandbox_kit import REPOSITORY, Bench, bench, commit, git

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

EVERYTHING = r"""
set -e
printf 'def add(a, b):\n    return a + b\n' > calc.py
printf 'one\r\ntwo\r\nthree\r\n' > windows.txt
head -c 300000 /dev/urandom > random.bin
chmod 755 run.sh
git rm -q --cached old.txt && rm old.txt
printf 'x' > "$(printf 'caf\351.txt')"
mkdir -p deep/er && printf '' > deep/er/empty
ln -sfn ../calc.py docs/inside
rm link && mkdir link && echo now-a-directory > link/file
git add -A && git commit -qm "the agent's own commit" && git branch agent && rm -rf .git/logs
echo ignored > keep.pyc
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("bench")) as made:
        yield made


async def verify(place: Bench, change: Change, command: str) -> CheckResult:
    sandbox = PodmanSandbox(place.host, place.mirror.path(REPOSITORY))
    return await sandbox.verify(place.spec(), place.pack, place.base, change, command, 60.0)


async def test_an_untouched_workspace_is_an_empty_change(place: Bench) -> None:
    async with place.open() as box:
        change = await box.sandbox.checkpoint(place.base)
    assert change.empty
    assert change.tree == git(place.source, "rev-parse", "HEAD^{tree}") == box.ready.tree


async def test_a_checkpoint_restores_the_same_bytes_modes_and_names(place: Bench, tmp_path: Path) -> None:
    async with place.open() as box:
        assert (await box.bash(EVERYTHING)).exit_code == 0
        change = await box.sandbox.checkpoint(place.base)
        again = await box.sandbox.checkpoint(place.base)
    assert change == again == decode_change(encode_change(change))
    modes = {entry.path: entry.mode for entry in change.written}
    assert modes == {
        b"calc.py": "100644",
        b"caf\xe9.txt": "100644",
        b"deep/er/empty": "100644",
        b"docs/inside": "120000",
        b"link/file": "100644",
        b"random.bin": "100644",
        b"run.sh": "100755",
        b"windows.txt": "100644",
    }
    assert set(change.deleted) == {b"old.txt", b"link"}
    contents = {entry.path: entry.content for entry in change.written}
    assert contents[b"windows.txt"] == b"one\r\ntwo\r\nthree\r\n"
    async with place.open() as other:
        await other.sandbox.restore(change)
        assert await other.sandbox.checkpoint(place.base) == change
        seen = await other.bash(
            "ls -1 deep/er old.txt link docs; readlink docs/inside; test -x run.sh && echo x"
        )
    assert "cannot access 'old.txt'" in seen.content
    assert seen.content.endswith("../calc.py\nx\n")


async def test_the_same_tree_comes_out_of_gits_own_hands(place: Bench, tmp_path: Path) -> None:
    async with place.open() as box:
        await box.bash(EVERYTHING)
        change = await box.sandbox.checkpoint(place.base)
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "--quiet", str(place.source), str(copy))
    (copy / ".gitattributes").write_bytes((place.source / ".gitattributes").read_bytes())
    (copy / ".git/info/attributes").write_text("* -text -filter\n")
    for path in change.deleted:
        (copy / path.decode()).unlink()
    for entry in change.written:
        target = copy / entry.path.decode("utf-8", "surrogateescape")
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.mode == "120000":
            target.symlink_to(entry.content.decode())
        else:
            target.write_bytes(entry.content)
            target.chmod(0o755 if entry.mode == "100755" else 0o644)
    commit(copy)
    assert git(copy, "rev-parse", "HEAD^{tree}") == change.tree


async def test_tests_pass_on_the_fixed_tree_and_fail_on_the_base(place: Bench) -> None:
    async with place.open() as box:
        unchanged = await box.sandbox.checkpoint(place.base)
        await box.edit("str_replace", "calc.py", old_str="a - b", new_str="a + b")
        change = await box.sandbox.checkpoint(place.base)
    passed = await verify(place, change, "python3 -m pytest -q")
    assert (passed.exit_code, passed.tree) == (0, change.tree)
    assert "1 passed" in passed.output
    failed = await verify(place, unchanged, "python3 -m pytest -q")
    assert failed.exit_code == 1
    assert "assert -1 == 3" in failed.output


async def test_a_check_that_hangs_has_no_exit_code(place: Bench) -> None:
    async with place.open() as box:
        unchanged = await box.sandbox.checkpoint(place.base)
    sandbox = PodmanSandbox(place.host, place.mirror.path(REPOSITORY))
    result = await sandbox.verify(place.spec(), place.pack, place.base, unchanged, "sleep 60", 0.5)
    assert result.exit_code is None


async def test_a_change_with_another_tree_than_it_claims_is_refused(place: Bench) -> None:
    async with place.open() as box:
        await box.bash("echo new > new.txt")
        change = await box.sandbox.checkpoint(place.base)
    forged = Change(base=change.base, tree="0" * 40, written=change.written, deleted=change.deleted)
    with pytest.raises(Refused, match="tree"):
        await verify(place, forged, "true")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        pytest.param("ln -s /etc/passwd a", "link out of", id="an absolute link"),
        pytest.param("ln -s ../../x docs/a", "link out of", id="a link that climbs out"),
        pytest.param("git init -q in && git -C in commit -qm x --allow-empty", "inside", id="a repository"),
        pytest.param("printf '[submodule]' > .gitmodules", ".gitmodules", id="submodules"),
        pytest.param("mkdir .GIT; echo x > .GIT/config", ".GIT/config", id="a git directory in capitals"),
        pytest.param("mkdir GIT~1; echo x > GIT~1/config", "GIT~1/config", id="a git directory for Windows"),
        pytest.param(
            "mkdir $'.g\\u200cit'; echo x > $'.g\\u200cit/config'", ".git", id="a git directory for HFS"
        ),
        pytest.param("touch $'new\\nline'", "control", id="a line end in a name"),
        pytest.param("seq 400 | xargs touch", "400 files", id="too many files"),
        pytest.param("head -c 11000000 /dev/zero > big", "11,000,000", id="a file that is too large"),
        pytest.param("for i in 1 2 3; do head -c 8000000 /dev/zero > $i; done", "24,000,000", id="too much"),
    ],
)
async def test_what_cannot_be_published_is_refused_by_name(place: Bench, command: str, words: str) -> None:
    async with place.open() as box:
        await box.bash(f"{command}; true")
        with pytest.raises(Refused) as refused:
            await box.sandbox.checkpoint(place.base)
    assert words in str(refused.value)


async def test_nothing_in_the_sandboxs_git_runs_on_the_host(place: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    planted = f"""
for key in core.fsmonitor core.hooksPath core.pager diff.external core.sshCommand gpg.program \\
    filter.x.clean filter.x.smudge filter.x.process credential.helper uploadpack.packObjectsHook; do
  git config $key "touch {marker}"
done
mkdir -p .git/hooks
for hook in pre-commit post-checkout post-index-change reference-transaction post-merge; do
  printf '#!/bin/sh\\ntouch {marker}\\n' > .git/hooks/$hook; chmod +x .git/hooks/$hook
done
echo '* filter=x diff=x merge=x' > .gitattributes
echo hostile > calc.py
mkdir sub && (cd sub && git init -q && git config core.fsmonitor "touch {marker}") && mv sub/.git sub/dotgit
"""
    async with place.open() as box:
        await box.bash(planted)
        change = await box.sandbox.checkpoint(place.base)
        assert b"calc.py" in {entry.path for entry in change.written}
        assert not marker.exists()
        await verify(place, change, "git status && git diff | cat")
    assert not marker.exists()
    config = (place.mirror.path(REPOSITORY) / "config").read_text()
    assert "touch" not in config


async def test_a_broken_git_directory_does_not_break_a_checkpoint(place: Bench) -> None:
    async with place.open() as box:
        await box.bash("rm -rf .git; echo x > x.txt")
        change = await box.sandbox.checkpoint(place.base)
    assert [entry.path for entry in change.written] == [b"x.txt"]
