"""Which paths and links a change may hold."""

import pytest

from services.sandbox_runner.paths import protected, wrong_link, wrong_path


@pytest.mark.parametrize(
    "path",
    [
        b"a.txt",
        b".gitignore",
        b".github/x.md",
        b"a/.gitattributes",
        b"git",
        b"dir/git/x",
        b"x.git/y",
        b"..a",
        b"a..b",
        b"caf\xc3\xa9",
        b"caf\xe9",
        b"a b",
        b"-rf",
        b".gitx",
        b"git~",
        b"github~1",
        "zerow\u200cidth".encode(),
    ],
)
def test_ordinary_paths_are_fine(path: bytes) -> None:
    assert wrong_path(path) is None


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/a",
        b"a//b",
        b"a/",
        b".",
        b"..",
        b"a/../b",
        b"./a",
        b"a\nb",
        b"a\x00b",
        b"\x7f",
        b"a\x1b[31m",
        b".git",
        b".git/config",
        b"a/.git/b",
        b".GIT/x",
        b".GiT",
        b"git~1",
        b"GIT~2/x",
        b".git ",
        b".git.",
        b".git. .",
        b".git::$INDEX_ALLOCATION",
        b".git\\config",
        b"a\\.git\\b",
        b"a\\..\\b",
        ".g\u200cit/x".encode(),
        ".GIT\ufeff".encode(),
        "\u202e.git".encode(),
        b".gitmodules",
        b".GitModules",
        b"GITMOD~1",
        b"gi7eba~1",
        b"sub/.gitmodules",
        b"x" * 256,
        b"/".join([b"x" * 200] * 21),
    ],
)
def test_dangerous_paths_are_not(path: bytes) -> None:
    assert wrong_path(path)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"a", b"b"),
        (b"d/a", b"../b"),
        (b"d/e/a", b"../../b/c"),
        (b"a", b"./b"),
        (b"d/a", b".."),
        (b"a", b"..b"),
    ],
)
def test_links_inside_are_fine(path: bytes, target: bytes) -> None:
    assert wrong_link(path, target) is None


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"a", b"/etc/passwd"),
        (b"a", b".."),
        (b"a", b"../x"),
        (b"d/a", b"../../x"),
        (b"a", b"b/../../x"),
        (b"d/a", b"e/.."),
        (b"a", b".git/config"),
        (b"d/a", b"../.GIT"),
        (b"a", b""),
        (b"a", b"c:\\x"),
        (b"a", b"./../x"),
        (b"a", b"x" * 5000),
    ],
)
def test_links_that_could_leave_are_not(path: bytes, target: bytes) -> None:
    assert wrong_link(path, target)


def test_files_that_steer_machines_are_found() -> None:
    paths = [
        b".github/workflows/ci.yml",
        b".GitHub/Workflows/x.yaml",
        b".github/actions/a/action.yml",
        b".gitlab-ci.yml",
        b"Jenkinsfile",
        b".circleci/config.yml",
        b"pkg/.github/workflows/x.yml",
    ]
    harmless = [b".github/ISSUE_TEMPLATE.md", b"docs/workflows/x.yml", b"src/jenkins.py", b"README.md"]
    assert protected([*paths, *harmless]) == sorted(path.decode() for path in paths)
