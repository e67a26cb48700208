"""One Millrace per module, between doubles; at the end of each test nothing may have gone wrong unseen."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.e2e.deployment import Together
from tests.e2e.harness import Scene


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """A configured Millrace: ``millrace up``, or the deployment that the test is parametrised with."""
    kind = getattr(request, "param", Together)
    async with Scene.opened(kind, tmp_path_factory.mktemp("e2e") / "home") as scene:
        yield scene


@pytest.fixture(autouse=True)
def _nothing_went_wrong_unseen(scene: Scene) -> Iterator[None]:
    """Every exchange kept to GitHub's and Anthropic's descriptions, and no service logged an error."""
    yield
    scene.github.faults.clear()  # those of a test that failed must not meet the next one
    scene.claude.faults.clear()
    assert scene.github.violations == []
    assert scene.claude.violations == []
    assert scene.millrace.complaints() == []
