"""MILLRACE_HOME is closed to others, whichever command comes first."""

import os
import subprocess
import sys
from pathlib import Path

from services.kit.embedded import EmbeddedNats
from services.kit.serve import running
from services.kit.settings import load


def test_doctor_creates_it_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = os.environ | {"MILLRACE_HOME": str(home)}
    doctor = [str(Path(sys.executable).with_name("millrace")), "doctor"]
    subprocess.run(doctor, env=environment, check=True, capture_output=True, timeout=60)
    assert home.stat().st_mode & 0o777 == 0o700


async def test_a_single_service_creates_it_closed(nats_server: EmbeddedNats, tmp_path: Path) -> None:
    home = tmp_path / "apart"
    async with running(load({}, home=home, nats_url=nats_server.url), []):
        assert home.stat().st_mode & 0o777 == 0o700
