"""Setups on real Podman, with this machine's own package indexes: where they are is asked, never written."""

import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from contracts import facts as f
from services.sandbox_runner.deps import Room, Store, Stored
from services.sandbox_runner.detect import Project, detect
from services.sandbox_runner.egress import Policy, Target, is_public
from services.sandbox_runner.images import Images
from services.sandbox_runner.proxy import Proxy
from services.sandbox_runner.repository_settings import RepositorySettings
from services.sandbox_runner.sandbox import MIB, Limits, SandboxSpec
from services.sandbox_runner.setup import Order, Setups
from services.sandbox_runner.setup_rules import Rules, later_environment, path
from tests.integration.sandbox_kit import REPOSITORY, Bench, Open, bench
from services.sandbox_runner.podman import PodmanSandbox


def machine_certificates() -> str:
    """What this machine trusts besides the usual, where somebody added to it."""
    added = Path("/usr/local/share/ca-certificates")
    return "".join(file.read_text() for file in sorted(added.glob("*.crt"))) if added.is_dir() else ""
