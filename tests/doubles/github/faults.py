"""Faults per endpoint: fail before, apply and then lose the answer, delay."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.doubles.github.http import Answer

Mode = Literal["before", "after", "delay"]


@dataclass
class Fault:
    """What to do to the next ``times`` requests of an endpoint; ``used`` counts them."""

    endpoint: str
    mode: Mode
    status: int | None = None
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    used: int = 0

    def answer(self) -> Answer | None:
        """What the client gets instead; ``None`` drops the connection."""
        if self.status is None:
            return None
        return Answer(
            self.status, self.body, {"content-type": "application/json; charset=utf-8", **self.headers}
        )


class Faults:
    """All of a double's faults, first come first served."""

    def __init__(self) -> None:
        self.planned: list[Fault] = []

    def add(
        self,
        endpoint: str,
        mode: Mode = "before",
        status: int | None = 502,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        seconds: float = 0.0,
    ) -> Fault:
        """Plan a fault.

        Args:
            endpoint: method and template, such as ``POST /repos/{owner}/{repo}/pulls``; git's own are
                ``GET /{owner}/{repo}.git/info/refs`` and ``POST /{owner}/{repo}.git/git-upload-pack``.
            mode: ``before`` answers without applying; ``after`` applies, then replaces the answer;
                ``delay`` only waits.
            status: of the replacing answer; ``None`` drops the connection.
            times: how many requests it meets.
            headers: of the replacing answer.
            body: of the replacing answer.
            seconds: wait that long first (in ``after``: once applied).
        """
        fault = Fault(endpoint, mode, status, times, headers or {}, body, seconds)
        self.planned.append(fault)
        return fault

    def take(self, endpoint: str) -> Fault | None:
        """The fault that meets this request."""
        for fault in self.planned:
            if fault.endpoint == endpoint and fault.used < fault.times:
                fault.used += 1
                return fault
        return None

    def clear(self) -> None:
        """No more faults."""
        self.planned.clear()
