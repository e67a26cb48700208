"""What the machine checks conclude from what they read."""

from pathlib import Path

import pytest

from services.kit.errors import Later, Refused
from services.sandbox_runner.checks import ids_for, namespaces, version_finding
from services.sandbox_runner.clone_errors import clone_error
from services.sandbox_runner.image import containerfile, image_name


@pytest.mark.parametrize(
    ("text", "ok"),
    [("podman version 4.3.1", True), ("5.0", True), ("3.4.4", False), ("3.99.0", False), ("what?", False)],
)
def test_versions_are_compared_as_numbers(text: str, ok: bool) -> None:
    finding = version_finding("podman", text, (4, 0))
    assert finding.ok is ok
    assert bool(finding.fix) is not ok


def test_subordinate_ids_are_added_up() -> None:
    lines = ["containers:1000:100", "other:5:9999999", "containers:5000:200", "containers:x", "#", ""]
    assert ids_for("containers", 0, lines) == 300


def test_a_missing_range_says_how_to_add_it(tmp_path: Path) -> None:
    finding = namespaces(tmp_path / "subuid")
    assert not finding.ok
    assert "containers:2147483647:2147483648" in finding.fix


def test_another_recipe_is_another_image() -> None:
    assert image_name(containerfile()) == image_name(containerfile())
    assert image_name(containerfile()) != image_name(containerfile() + b"\n")


@pytest.mark.parametrize(
    ("words", "error", "kind"),
    [
        ("fatal: write error: No space left on device\nfatal: index-pack failed", Later, "disk_full"),
        ("fatal: early EOF\nfatal: index-pack failed", Later, "clone_interrupted"),
        ("fatal: unable to access 'https://h/': Could not resolve host: h", Later, "clone_unreachable"),
        (
            "remote: Repository not found.\nfatal: repository 'https://h/' not found",
            Refused,
            "repository_not_found",
        ),
        ("fatal: transport 'file' not allowed", Refused, "clone_forbidden"),
        ("batch response: This repository is over its data quota", Later, "clone_unavailable"),
        ("something new https://x-access-token:ghs_secret@h/", Later, "clone_failed"),
    ],
)
def test_gits_words_have_a_class_and_are_not_repeated(words: str, error: type[Later], kind: str) -> None:
    found = clone_error(words)
    assert type(found) is error
    assert found.kind == kind
    assert "://" not in str(found)
