"""A manifest is hostile input: nothing of it is taken before it is checked."""

import hashlib
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import Refused
from services.sandbox_runner.change import ChangeLimits, blob_id, read_manifest, readable

LIMITS = ChangeLimits(files=3, file_size=10, size=15)


def manifest(
    *written: tuple[str, bytes, int], deleted: tuple[bytes, ...] = (), **more: Any
) -> dict[str, Any]:
    return {
        "tree": "a" * 40,
        "files": len(written) + len(deleted),
        "size": sum(size for _, _, size in written),
        "largest": 0,
        "written": [[mode, b64encode(path).decode(), size] for mode, path, size in written],
        "deleted": [b64encode(path).decode() for path in deleted],
        **more,
    }


def test_contents_are_cut_in_the_order_of_the_entries() -> None:
    read = read_manifest(
        manifest(("100644", b"b", 2), ("100755", b"a", 3), deleted=(b"c",)), b"BBAAA", LIMITS
    )
    assert [(e.path, e.mode, e.content) for e in read.written] == [
        (b"a", "100755", b"AAA"),
        (b"b", "100644", b"BB"),
    ]
    assert read.written[0].blob == hashlib.sha1(b"blob 3\0AAA").hexdigest()  # noqa: S324  git's
    assert read.deleted == (b"c",)


@pytest.mark.parametrize(
    ("fields", "contents", "kind"),
    [
        pytest.param(manifest(("100644", b"a", 5)), b"1234", "manifest_malformed", id="too few bytes"),
        pytest.param(manifest(("100644", b"a", 3)), b"1234", "manifest_malformed", id="too many bytes"),
        pytest.param(manifest(("100644", b"a", -1)), b"", "manifest_malformed", id="a negative size"),
        pytest.param(
            manifest(("100644", b"a", 1), ("100644", b"a", 1)), b"12", "manifest_malformed", id="a path twice"
        ),
        pytest.param(
            manifest(("100644", b"a", 1), deleted=(b"a",)),
            b"1",
            "manifest_malformed",
            id="written and deleted",
        ),
        pytest.param({"tree": 1}, b"", "manifest_malformed", id="another shape"),
        pytest.param(
            manifest() | {"deleted": ["***"]}, b"", "manifest_malformed", id="a path that is not base64"
        ),
        pytest.param(manifest(("100644", b"a", 11)), b"1" * 11, "change_too_large", id="a large file"),
        pytest.param(
            manifest(("100644", b"a", 8), ("100644", b"b", 8)),
            b"1" * 16,
            "change_too_large",
            id="all too large",
        ),
        pytest.param(
            manifest(deleted=(b"a", b"b", b"c", b"d")), b"", "change_too_large", id="too many paths"
        ),
        pytest.param(manifest(too_large=True), b"", "change_too_large", id="too large already inside"),
        pytest.param(manifest(("160000", b"a", 0)), b"", "change_not_allowed", id="a gitlink"),
        pytest.param(manifest(("104755", b"a", 0)), b"", "change_not_allowed", id="setuid"),
        pytest.param(manifest(("120000", b"a", 4)), b"/etc", "change_not_allowed", id="a link out"),
        pytest.param(manifest(("100644", b".git/x", 0)), b"", "change_not_allowed", id="into .git"),
        pytest.param(manifest(deleted=(b"../x",)), b"", "change_not_allowed", id="deleting outside"),
    ],
)
def test_what_is_wrong_is_refused(fields: dict[str, Any], contents: bytes, kind: str) -> None:
    with pytest.raises(Refused) as caught:
        read_manifest(fields, contents, LIMITS)
    assert caught.value.kind == kind


@given(st.recursive(st.none() | st.integers() | st.text() | st.binary(), st.lists, max_leaves=5), st.binary())
def test_no_shape_of_an_entry_does_more_than_be_refused(entry: Any, contents: bytes) -> None:
    with pytest.raises(Refused):
        read_manifest(manifest() | {"written": [entry, "x"]}, contents, LIMITS)


@given(st.binary(max_size=400))
def test_a_readable_path_has_nothing_that_a_terminal_obeys(path: bytes) -> None:
    assert readable(path).isprintable()


def test_blob_ids_are_gits() -> None:
    assert blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
