"""What a change may and may not do to its own examination, on real Podman; named by their rows."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from contracts import facts as f
from contracts.change import encode_change, reference
from contracts.envelope import Envelope, Recorded
from contracts.story import KEY, REQUESTED
from services.kit.bus import Bus
from services.kit.embedded import EmbeddedNats
from services.kit.errors import Refused
from services.kit.provision import provision
from services.sandbox_runner.act import Workshop
from services.sandbox_runner.decide import Verify
from services.sandbox_runner.held import Shelf
from services.sandbox_runner.verification import Baselines, Verifier
from tests.integration.sandbox_kit import git
from tests.integration.setup_kit import LIMITS, Source, Yard

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

FILES: dict[str, str | bytes] = {
    "calc.py": "def add(a, b):\n    return a - b\n\n\ndef one():\n    return 1\n",
    "test_calc.py": (
        "import calc\n\ndef test_add():\n    assert calc.add(1, 2) == 3\n\n"
        "def test_one():\n    assert calc.one() == 1\n\ndef test_never():\n    assert False\n"
    ),
    "app.js": "function f() {\n  return 1\n}\n",
    ".millrace.toml": (
        '[test]\ncommand = "python3 -m pytest -q"\n[policy]\nprotected = ["deploy/"]\n'
        '[environment]\nWHOSE = "base"\n'
    ),
    "go.sum": "",
    "run.sh": "true\n",
}


class Bare(Workshop):
    """The workshop with repositories that need no token."""

    source: Source

    async def _repository(self, *_: object) -> tuple[str, Path]:
        return self.source.base, self.source.pack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bus]:
    async with EmbeddedNats(tmp_path_factory.mktemp("nats")) as server:
        bus = Bus(server.url, "test", grace=2)
        await bus.connect()
        await provision(bus.client)
        yield bus
        await bus.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def examine(place: Yard, bus: Bus) -> AsyncIterator["Examiner"]:
    made = Examiner(place, bus)
    made.source = await place.source(FILES)
    yield made
    await made.baselines.close()


class Examiner:
    """Changes a sandbox by a command and verifies what came of it."""

    source: Source

    def __init__(self, place: Yard, bus: Bus) -> None:
        self.place = place
        self.bus = bus
        verifier = Verifier(place.host, place.mirror, LIMITS, 300.0)
        self.baselines = Baselines(verifier, place.directory / "baselines")

    async def __call__(self, command: str) -> f.VerificationFinished:
        source, place = self.source, self.place
        workshop = Bare(
            bus=self.bus,
            host=place.host,
            mirror=place.mirror,
            shelf=Shelf(self.bus, 4),
            grounds=place.grounds(),
            baselines=self.baselines,
            limits=LIMITS,
            github_url="https://github.invalid",
        )
        workshop.source = source
        ground = await place.ground(source)
        assert ground.stored is None
        async with place.open(source) as box:
            await box.bash(command)
            change = await box.sandbox.checkpoint(source.base)
        await self.bus.objects.put(encode_change(change))
        repository = msgspec.structs.replace(REQUESTED.repository, id=source.id)
        ready = f.SandboxReady(
            sandbox_id="s",
            runner="r",
            generation=1,
            base=source.base,
            base_ref="main",
            tree=git(source.directory, "rev-parse", "HEAD^{tree}"),
            image=place.image.name,
            test_command="true",
        )
        plan = Verify(
            request=msgspec.structs.replace(REQUESTED, repository=repository),
            attempt=1,
            base=ready,
            change=reference(change),
        )
        envelope = Envelope(
            id=uuid.uuid4().hex, key=KEY, source="/test", time=datetime.now(UTC), cause="test"
        )
        (fact,) = await workshop(plan, Recorded(sequence=1, envelope=envelope, fact=REQUESTED))
        assert isinstance(fact, f.VerificationFinished)
        return fact


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("true", id="nothing"),
        pytest.param("printf '\\n\\n' >> calc.py; sed -i 's/$/  /' test_calc.py", id="blanks and lines"),
        pytest.param("sed -i 's/$/\\r/' calc.py", id="line ends"),
        pytest.param("sed -i 's/  return/\\t\\treturn/' app.js", id="indentation without a meaning"),
        pytest.param("chmod 755 run.sh", id="a mode"),
        pytest.param("chmod 755 run.sh; echo >> app.js", id="a mode and a line"),
    ],
)
async def test_a44_a_change_without_substance_is_no_change(examine: Examiner, command: str) -> None:
    seen = await examine(command)
    assert seen.verdict == "unchanged"
    assert seen.checks == ()


async def test_a44_a_change_of_pythons_indentation_is_a_change(examine: Examiner) -> None:
    seen = await examine("sed -i 's/^def one/if True:\\n  def one/; s/    return 1/    return 1/' calc.py")
    assert seen.verdict == "failed"


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("mkdir -p .github/workflows; echo x > .github/workflows/x.yml", ".github/workflows/x.yml"),
        ("mkdir deploy; echo x > deploy/x", "deploy/x"),
        ("printf '[test]\\ncommand = \"true\"\\n' > .millrace.toml", ".millrace.toml"),
        ("rm .millrace.toml", ".millrace.toml"),
    ],
)
async def test_a11_protected_paths_are_refused_by_name(examine: Examiner, command: str, path: str) -> None:
    seen = await examine(command)
    assert (seen.verdict, seen.reason) == ("refused", f"it touches protected files: {path}")


async def test_tests_are_compared_one_by_one_with_the_base(examine: Examiner) -> None:
    seen = await examine("sed -i 's/a - b/a + b/; s/return 1/return 2/' calc.py")
    assert seen.verdict == "failed"
    (check,) = seen.checks
    (before,) = seen.base_checks
    assert (check.tests, before.tests) == (
        f.TestCounts(passed=1, failed=2),
        f.TestCounts(passed=1, failed=2),
    )
    assert seen.comparison == f.Comparison(
        newly_failing=f.NamedTests(count=1, names=("test_calc::test_one",)),
        newly_passing=f.NamedTests(count=1, names=("test_calc::test_add",)),
        still_failing=f.NamedTests(count=1, names=("test_calc::test_never",)),
    )


async def test_the_base_is_tested_once_for_all_changes_to_it(examine: Examiner, place: Yard) -> None:
    first = await examine("echo x > x.txt")
    second = await examine("echo y > y.txt")
    assert first.base_checks == second.base_checks
    assert len(list((place.directory / "baselines").glob(f"{examine.source.id}/*.json"))) == 1


async def test_a12_sensitive_files_are_named(examine: Examiner) -> None:
    seen = await examine("echo x >> go.sum; mkdir -p .vscode; echo {} > .vscode/tasks.json; rm test_calc.py")
    assert any(".vscode/tasks.json" in note and "go.sum" in note for note in seen.notes)
    assert seen.comparison is None or seen.comparison.gone.count == 3


async def test_a30_a_forged_report_changes_names_and_not_the_verdict(examine: Examiner) -> None:
    seen = await examine(
        "cat > conftest.py <<'END'\n"
        "import atexit\n"
        'FORGED = \'<testsuite><testcase classname="a" name="all"/></testsuite>\'\n'
        "atexit.register(lambda: open('/tmp/.millrace/report.xml', 'w').write(FORGED))\n"
        "END"
    )
    assert seen.checks[0].tests == f.TestCounts(passed=1)
    assert seen.checks[0].exit_code == 1
    assert seen.verdict == "failed"


async def test_settings_that_are_wrong_end_the_run_with_the_keys_name(place: Yard) -> None:
    source = await place.source({".millrace.toml": "[test]\ncommand = 3\n"})
    with pytest.raises(Refused, match=r"test\.command is not a text"):
        await place.ground(source)
    other = await place.source({".millrace.toml": '[sandbox]\nimage = "trap.example/x:1"\n'})
    with pytest.raises(Refused, match=r"trap\.example/x:1, which the operator does not allow"):
        await place.ground(other)
