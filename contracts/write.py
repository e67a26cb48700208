"""``python -m contracts.write``: the catalogue on disk, made anew from the structs and the example run."""

import json
from pathlib import Path
from typing import Any

from contracts.events_page import events_page
from contracts.schema import asyncapi, every_fact, example_of, examples, schema_of
from contracts.subjects import tag_of

ROOT = Path(__file__).parents[1]
FOLDERS = ("contracts/schemas", "contracts/examples")
"""What lies here is ours alone: a file that is no longer made is removed."""


def documents() -> dict[str, str]:
    """Every file by its path under the root. Pure."""
    made = {"docs/events.md": events_page(), "docs/asyncapi.json": _text(asyncapi())}
    for fact in every_fact():
        made[f"contracts/schemas/{tag_of(fact)}.json"] = _text(schema_of(fact))
        for said in examples(fact):
            made[f"contracts/examples/{said.title}.json"] = _text(example_of(said))
    return made


def orphans(root: Path = ROOT) -> list[Path]:
    """Files in our folders that nothing makes."""
    made = documents()
    found = (file for folder in FOLDERS for file in (root / folder).rglob("*") if file.is_file())
    return sorted(file for file in found if str(file.relative_to(root)) not in made)


def write(root: Path = ROOT) -> list[str]:
    """Write what differs and remove orphans; the paths that changed."""
    changed = []
    for path, text in documents().items():
        file = root / path
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            changed.append(path)
    for file in orphans(root):
        file.unlink()
        changed.append(f"{file.relative_to(root)} (removed)")
    return changed


def _text(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path in write():
        print(path)  # noqa: T201  a command tells what it did
