"""Settings are complete and typed, or Millrace does not start and says why without showing a value."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as each
from hypothesis import strategies as st

from services.kit.errors import Misconfigured
from services.kit.settings import Settings, load

CANARY = "canary-7f3a91"


def refused(environ: dict[str, str], **overrides: Any) -> str:
    with pytest.raises(Misconfigured) as error:
        load(environ, **overrides)
    return str(error.value)


def test_nothing_needs_to_be_set() -> None:
    settings = load({})
    assert (settings.home, settings.listen, settings.github_url) == (
        Path(".millrace"), "127.0.0.1:8787", "https://github.com",
    )  # fmt: skip
    assert (settings.admin_token, settings.nats_url, settings.database_url, settings.anthropic_api_key) == (
        None, None, None, None,
    )  # fmt: skip


def test_variables_become_typed_values() -> None:
    settings = load(
        {
            "MILLRACE_HOME": "/srv/millrace",
            "MILLRACE_LISTEN": "[::1]:80",
            "MILLRACE_MAX_TURNS": "7",
            "MILLRACE_MAX_COST": "0.5",
            "MILLRACE_GITHUB_API_URL": "https://git.corp.example/api/v3/",
            "MILLRACE_LOG_FORMAT": "json",
            "MILLRACE_ADMIN_TOKEN": CANARY,
            "ANTHROPIC_API_KEY": "sk-ant-x",
            "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        }
    )
    assert (settings.home, settings.listen, settings.max_turns, settings.max_cost) == (
        Path("/srv/millrace"), "[::1]:80", 7, 0.5,
    )  # fmt: skip
    assert settings.github_api_url == "https://git.corp.example/api/v3"
    assert settings.log_format == "json"
    assert settings.admin_token is not None
    assert settings.admin_token.get_secret_value() == CANARY
    assert settings.anthropic_api_key is not None
    assert settings.anthropic_api_key.get_secret_value() == "sk-ant-x"
    assert settings.anthropic_base_url == "http://127.0.0.1:9"


def test_what_is_not_ours_is_passed_over() -> None:
    other = {"PATH": "/bin", "ANTHROPIC_MODEL": "x", "millrace_home": "x", "NATS_URL": "x", "X_FILE": "/x"}
    assert load(other).model_dump(exclude={"instance"}) == load({}).model_dump(exclude={"instance"})


def test_an_empty_variable_of_another_program_is_unset(tmp_path: Path) -> None:
    assert load({"ANTHROPIC_API_KEY": "", "ANTHROPIC_BASE_URL": ""}).anthropic_api_key is None
    file = tmp_path / "key"
    file.write_text("sk-ant-y\n")
    settings = load({"ANTHROPIC_API_KEY": "", "ANTHROPIC_API_KEY_FILE": str(file)})
    assert settings.anthropic_api_key is not None
    assert settings.anthropic_api_key.get_secret_value() == "sk-ant-y"


@pytest.mark.parametrize(
    "variable",
    [
        "MILLRACE_HOEM",
        "MILLRACE_",
        "MILLRACE_ANTHROPIC_API_KEY",
        "MILLRACE_HOME_FILE",
        "MILLRACE_INSTANCE_FILE",
    ],
)
def test_an_unknown_variable_is_named(variable: str) -> None:
    said = refused({variable: CANARY})
    assert f"{variable} is not a setting of Millrace" in said
    assert CANARY not in said


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MILLRACE_LISTEN", f"{CANARY}"),
        ("MILLRACE_LISTEN", f"{CANARY}:http"),
        ("MILLRACE_LISTEN", f"{CANARY}:65536"),
        ("MILLRACE_LISTEN", ":8787"),
        ("MILLRACE_NATS_LISTEN", f"{CANARY}:-1"),
        ("MILLRACE_GITHUB_URL", f"{CANARY}.example"),
        ("MILLRACE_GITHUB_URL", f"ftp://{CANARY}.example"),
        ("MILLRACE_GITHUB_URL", f"https://me:{CANARY}@github.com"),
        ("MILLRACE_GITHUB_URL", f"https://{CANARY}@github.com"),
        ("MILLRACE_GITHUB_URL", "https://"),
        ("MILLRACE_GITHUB_URL", "https:///"),
        ("MILLRACE_GITHUB_URL", f"https://h/?{CANARY}"),
        ("MILLRACE_GITHUB_URL", f"https://h/#{CANARY}"),
        ("MILLRACE_GITHUB_URL", f"https://h:{CANARY}"),
        ("MILLRACE_GITHUB_URL", "https://h:99999"),
        ("MILLRACE_GITHUB_URL", f"https://h/{CANARY} x"),
        ("MILLRACE_GITHUB_URL", f"https://[{CANARY}"),
        ("ANTHROPIC_BASE_URL", CANARY),
        ("MILLRACE_MAX_TURNS", "0"),
        ("MILLRACE_MAX_TURNS", CANARY),
        ("MILLRACE_MAX_COST", "-1"),
        ("MILLRACE_MAX_COST", CANARY),
        ("MILLRACE_NATS_REPLICAS", "6"),
        ("MILLRACE_SANDBOX_MEMORY", "255"),
        ("MILLRACE_LOG_LEVEL", CANARY),
        ("MILLRACE_LOG_FORMAT", "JSON"),
        ("MILLRACE_MENTION", CANARY),
        ("MILLRACE_MENTION", "@"),
        ("MILLRACE_LABEL", CANARY * 5),
    ],
)
def test_a_malformed_value_is_refused_and_named_but_not_shown(variable: str, value: str) -> None:
    said = refused({variable: value})
    assert f"  {variable}: " in said
    assert CANARY not in said


@pytest.mark.parametrize(
    "field", [name for name in Settings.model_fields if not name.startswith("anthropic")]
)
def test_an_empty_value_is_a_mistake_not_a_default(field: str) -> None:
    variable = f"MILLRACE_{field.upper()}"
    assert f"{variable} is empty: give it a value or unset it" in refused({variable: ""})


def test_everything_that_is_wrong_is_said_at_once() -> None:
    said = refused(
        {
            "MILLRACE_A": "1",
            "MILLRACE_MAX_TURNS": "x",
            "MILLRACE_LISTEN": "",
            "MILLRACE_NATS_URL_FILE": "/nowhere",
            "ANTHROPIC_BASE_URL": "x",
        }
    )
    named = [line.split()[0].rstrip(":") for line in said.splitlines()[1:]]
    assert sorted(named) == [
        "ANTHROPIC_BASE_URL",
        "MILLRACE_A",
        "MILLRACE_LISTEN",
        "MILLRACE_MAX_TURNS",
        "MILLRACE_NATS_URL_FILE",
    ]


SECRETS = [
    ("MILLRACE_ADMIN_TOKEN", "admin_token"),
    ("MILLRACE_NATS_URL", "nats_url"),
    ("MILLRACE_DATABASE_URL", "database_url"),
    ("ANTHROPIC_API_KEY", "anthropic_api_key"),
]


@pytest.mark.parametrize(("variable", "field"), SECRETS)
def test_a_secret_can_come_from_a_file(variable: str, field: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"  {CANARY}\n")
    assert getattr(load({f"{variable}_FILE": str(file)}), field).get_secret_value() == CANARY


@pytest.mark.parametrize(("variable", "field"), SECRETS)
def test_a_secret_given_twice_is_refused(variable: str, field: str, tmp_path: Path) -> None:
    file = tmp_path / field
    file.write_text(CANARY)
    said = refused({variable: CANARY, f"{variable}_FILE": str(file)})
    assert f"{variable} and {variable}_FILE are both set: keep one" in said
    assert CANARY not in said


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(None, "the file cannot be read (FileNotFoundError)", id="missing"),
        pytest.param(
            b"\xff\xfe" + CANARY.encode(), "the file cannot be read (UnicodeDecodeError)", id="no text"
        ),
        pytest.param(b" \n", "the file is empty", id="empty"),
    ],
)
def test_an_unusable_file_is_told_without_its_content(
    content: bytes | None, why: str, tmp_path: Path
) -> None:
    file = tmp_path / CANARY
    if content is not None:
        file.write_bytes(content)
    said = refused({"MILLRACE_ADMIN_TOKEN_FILE": str(file)})
    assert f"MILLRACE_ADMIN_TOKEN_FILE: {why}" in said
    assert CANARY not in said


def test_a_folder_and_an_empty_path_are_no_files(tmp_path: Path) -> None:
    assert "(IsADirectoryError)" in refused({"MILLRACE_ADMIN_TOKEN_FILE": str(tmp_path)})
    assert "MILLRACE_ADMIN_TOKEN_FILE: the file cannot be read" in refused({"MILLRACE_ADMIN_TOKEN_FILE": ""})


def test_the_caller_overrides_the_environment_and_is_held_to_the_same_rules() -> None:
    assert load({"MILLRACE_MAX_TURNS": "7"}, max_turns=8).max_turns == 8
    assert "MILLRACE_MAX_TURNS: " in refused({}, max_turns=0)
    assert "no_such_field: " in refused({}, no_such_field=CANARY)
    assert CANARY not in refused({}, no_such_field=CANARY)


def test_settings_do_not_change_and_show_no_secret() -> None:
    settings = load({name: CANARY for name, _ in SECRETS})
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert CANARY not in shown
    with pytest.raises(ValueError, match="frozen"):
        settings.max_turns = 1


def test_the_environment_itself_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_MAX_TURNS", "9")
    assert load().max_turns == 9


@each(
    st.text(max_size=30), st.sampled_from(["LISTEN", "GITHUB_URL", "MAX_TURNS", "MENTION", "HOME", "LABEL"])
)
def test_no_value_breaks_the_reading(value: str, name: str) -> None:
    said, settings = "", None
    try:
        settings = load({f"MILLRACE_{name}": value})
    except Misconfigured as error:
        said = str(error)
    assert settings is not None or f"MILLRACE_{name}" in said
