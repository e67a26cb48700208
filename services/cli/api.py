"""The gateway's API as the commands use it."""

from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec

from services.kit.errors import Later, Refused
from services.kit.settings import Settings, load


class Api:
    """Requests as the operator; every failure is a sentence that says what to do."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or load()
        self._url = f"http://{self._settings.listen}"

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer; ``Later`` or ``Refused`` otherwise."""
        try:
            answer = httpx2.request(
                method,
                self._url + path,
                headers=self._headers(),
                content=None if body is None else msgspec.json.encode(body),
                timeout=30,
            )
        except httpx2.HTTPError as error:
            raise self._away(error) from None
        self._check(answer.status_code, answer.text)
        return msgspec.json.decode(answer.content) if answer.content else None

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Server-sent events as they come, without end."""
        headers = self._headers() | {"accept": "text/event-stream"}
        try:
            with httpx2.stream("GET", self._url + path, headers=headers, timeout=None) as answer:
                if answer.status_code != 200:
                    answer.read()
                    self._check(answer.status_code, answer.text)
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        yield msgspec.json.decode(line[5:].strip())
        except httpx2.HTTPError as error:
            raise self._away(error) from None

    def _headers(self) -> dict[str, str]:
        if self._settings.admin_token is not None:
            token = self._settings.admin_token.get_secret_value()
        else:
            file = self._settings.home / "admin-token"
            try:
                token = file.read_text().strip()
            except OSError as error:
                raise Refused(
                    f"there is no operator token at {file.absolute()}: start `millrace up` here, "
                    "or set MILLRACE_ADMIN_TOKEN or MILLRACE_HOME"
                ) from error
        return {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def _away(self, error: Exception) -> Later:
        return Later(
            f"no gateway answers at {self._url} ({type(error).__name__}): start it with `millrace up`, "
            "or set MILLRACE_LISTEN to where it listens"
        )

    def _check(self, status: int, text: str) -> None:
        if status < 300:
            return
        if status == 401:
            raise Refused("the gateway does not accept this operator token: check MILLRACE_ADMIN_TOKEN")
        try:
            answer = msgspec.json.decode(text)
            why = answer.get("error") or answer.get("detail") or text
        except (msgspec.DecodeError, AttributeError):
            why = text[:200] or "no reason given"
        raise Refused(f"the gateway answered {status}: {why}")
