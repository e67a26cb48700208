"""How a repository is tested, from its root."""

import pytest

from services.sandbox_runner.detect import detect

NPM = '{"scripts": {"test": "jest"}}'


@pytest.mark.parametrize(
    ("names", "contents", "command"),
    [
        pytest.param(
            {"pyproject.toml"}, {"pyproject.toml": "[tool.pytest.ini_options]"}, "pytest", id="settings"
        ),
        pytest.param({"setup.py", "tests/"}, {}, "pytest", id="a tests directory"),
        pytest.param({"test_calc.py", "calc.py"}, {}, "pytest", id="tests at the root"),
        pytest.param({"package.json"}, {"package.json": NPM}, "npm test", id="npm"),
        pytest.param({"go.mod"}, {}, "go test ./...", id="go"),
        pytest.param({"Cargo.toml"}, {}, "cargo test", id="cargo"),
        pytest.param({"Makefile"}, {"Makefile": "all:\n\ntest: all\n\techo"}, "make test", id="make"),
        pytest.param(
            {"conftest.py", "package.json"}, {"package.json": NPM}, "pytest", id="python before npm"
        ),
        pytest.param(
            {".millrace.toml", "go.mod"},
            {".millrace.toml": '[test]\ncommand = "./t"'},
            "./t",
            id="its own word",
        ),
    ],
)
def test_the_way_to_test_is_found(names: set[str], contents: dict[str, str], command: str) -> None:
    found = detect(names, contents)
    assert found.test_command is not None
    assert command in found.test_command
    assert found.test_command in found.about


@pytest.mark.parametrize(
    ("names", "contents"),
    [
        pytest.param({"README.md"}, {}, id="nothing"),
        pytest.param(
            {"package.json"}, {"package.json": '{"scripts": {"test": "echo no test specified"}}'}, id="stub"
        ),
        pytest.param({"package.json"}, {"package.json": "[" * 100_000}, id="broken json"),
        pytest.param({"package.json"}, {"package.json": '{"scripts": []}'}, id="another shape"),
        pytest.param({"Makefile"}, {"Makefile": "# test: none\ntests-all:\n\techo"}, id="no test target"),
        pytest.param({"setup.py"}, {}, id="python without tests"),
    ],
)
def test_no_way_to_test_is_said(names: set[str], contents: dict[str, str]) -> None:
    found = detect(names, contents)
    assert found.test_command is None
    assert "No way to run tests" in found.about


@pytest.mark.parametrize("text", ["[test", "[test]\ncommand = 3", '[test]\ncommand = "  "'])
def test_broken_settings_are_named_and_passed_over(text: str) -> None:
    found = detect({".millrace.toml", "go.mod"}, {".millrace.toml": text})
    assert found.test_command == "go test ./..."
    assert ".millrace.toml" in found.problem
