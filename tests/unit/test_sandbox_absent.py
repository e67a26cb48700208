"""Submodules and LFS files are not fetched, and that is said."""

import pytest

from services.sandbox_runner.absent import absent


@pytest.mark.parametrize(
    ("links", "attributes", "said"),
    [
        ([], {}, ""),
        ([], {b".gitattributes": b"*.txt text\n# *.bin filter=lfs\n"}, ""),
        (
            [b"lib/one", b"two\n"],
            {},
            "Submodules are not checked out, their directories are empty: lib/one, two\\u000a.",
        ),
        (
            [],
            {b".gitattributes": b"*.bin filter=lfs diff=lfs -text\n*.txt text\n", b"a/.gitattributes": b"x* filter=lfs\n"},
            "Files under Git LFS are pointers, not their contents: *.bin, a/x*.",
        ),
        (
            [b"%d" % number for number in range(8)],
            {},
            "Submodules are not checked out, their directories are empty: 0, 1, 2, 3, 4 and 3 more.",
        ),
    ],
)  # fmt: skip
def test_what_a_checkout_lacks_is_named(
    links: list[bytes], attributes: dict[bytes, bytes], said: str
) -> None:
    assert absent(links, attributes) == said


def test_a_repository_cannot_write_a_novel() -> None:
    said = absent([b"x" * 5000] * 1000, {b".gitattributes": b"y" * 5000 + b" filter=lfs\n"})
    assert len(said) < 1000
