"""The search for secrets finds them in every form, and nothing else."""

import base64
import secrets
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.canaries import Canaries

SECRET = secrets.token_urlsafe(60) + "+/="
PART = SECRET[10:].encode()


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(PART, id="as it is"),
        pytest.param(PART.hex().encode(), id="hex"),
        pytest.param(quote(SECRET, safe="").encode(), id="in a URL"),
        pytest.param(base64.b64encode(PART), id="base64"),
        pytest.param(base64.b64encode(b"x-access-token:" + PART), id="base64 after something"),
        pytest.param(base64.b64encode(b"user:" + PART + b":end"), id="base64 between something"),
        pytest.param(base64.urlsafe_b64encode(b"1" + PART), id="base64 for URLs"),
    ],
)
def test_a_secret_is_found(tmp_path: Path, form: bytes) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(secrets.token_bytes(999) + form + secrets.token_bytes(999))
    assert Canaries({"it": SECRET}).in_files([tmp_path])


def test_other_bytes_are_no_secret() -> None:
    assert Canaries({"it": SECRET}).in_bytes(secrets.token_urlsafe(3000).encode(), "elsewhere") == []
