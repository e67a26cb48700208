"""GitHub's real webhook payloads, as collected by Octokit (npm ``@octokit/webhooks-examples``, MIT)."""

import gzip
import json
from pathlib import Path

from tests.doubles.github.state import Json

_FILE = Path(__file__).parents[2] / "data" / "github" / "webhooks-examples.json.gz"


def examples() -> list[tuple[str, Json]]:
    """All 329 payloads, each with the name of its event."""
    groups = json.loads(gzip.decompress(_FILE.read_bytes()))
    return [(group["name"], payload) for group in groups for payload in group["examples"]]
