"""What counts as a change, and what is only white space."""

import pytest

from services.sandbox_runner.substance import same_substance


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        pytest.param(b"a.py", b"x = 1\n", b"x = 1\n", id="nothing"),
        pytest.param(b"a.py", b"x = 1\n", b"x = 1  \n\n\n", id="trailing blanks and lines"),
        pytest.param(b"a.py", b"x = 1\ny = 2\n", b"x = 1\r\ny = 2", id="line ends"),
        pytest.param(b"a.py", b"x = 1\n", b"\nx = 1\n", id="a blank line before"),
        pytest.param(b"a.c", b"if (x)\n  y();\n", b"if (x)\n\ty();\n", id="indentation where braces count"),
        pytest.param(b"A.JS", b"f()\n", b"    f()\n", id="a name in capitals"),
        pytest.param(b"caf\xe9", b"\xff\n", b"\xff \n", id="no UTF-8"),
        pytest.param(b"new", b"", b" \n\n", id="a file of blanks"),
    ],
)
def test_white_space_is_no_change(path: bytes, before: bytes, after: bytes) -> None:
    assert same_substance(path, before, after)
    assert same_substance(path, after, before)


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        pytest.param(
            b"a.py", b"if x:\n    y()\nz()\n", b"if x:\n    y()\n    z()\n", id="Python's indentation"
        ),
        pytest.param(b"Makefile", b"a:\n    cc\n", b"a:\n\tcc\n", id="a tab in a Makefile"),
        pytest.param(b"a.yml", b"a:\n b: 1\n", b"a:\nb: 1\n", id="YAML's indentation"),
        pytest.param(b"notes", b"a\n", b" a\n", id="an unknown kind of file"),
        pytest.param(b"a.js", b"'helloworld'", b"'hello world'", id="a space within a line"),
        pytest.param(b"a.js", b"a\nb", b"ab", id="joined lines"),
        pytest.param(b"a.bin", b"a\0b", b"a\0b\n", id="binary"),
        pytest.param(b"a.py", b"x = 1\n", b"x = 2\n", id="a word"),
    ],
)
def test_everything_else_is_a_change(path: bytes, before: bytes, after: bytes) -> None:
    assert not same_substance(path, before, after)
    assert not same_substance(path, after, before)
