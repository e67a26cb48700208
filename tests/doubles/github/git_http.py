"""Git over HTTP: ``git http-backend`` behind GitHub's access check."""

import asyncio
import base64
import binascii
import os
from collections.abc import Mapping

from tests.doubles.github.auth import DeniedError, Identity, Vault
from tests.doubles.github.http import Answer
from tests.doubles.github.state import Repository

SERVICES = {"info/refs", "git-upload-pack", "git-receive-pack"}
_CHALLENGE = {"www-authenticate": 'Basic realm="GitHub"', "content-type": "text/plain"}


def identify(vault: Vault, headers: Mapping[str, str]) -> Identity:
    """Who sent the Basic credentials; the user name must be x-access-token, as GitHub asks of apps.

    Raises:
        DeniedError: the credentials are no good.
    """
    given = headers.get("authorization", "")
    if not given:
        return Identity()
    scheme, _, encoded = given.partition(" ")
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise DeniedError(401, "Invalid credentials") from error
    if scheme.lower() != "basic" or name != "x-access-token":
        raise DeniedError(401, "Invalid credentials")
    return vault.identify(password)


def refusal(who: Identity, repo: Repository | None, *, writes: bool) -> Answer | None:
    """Why not; ``None`` lets it pass. Public repositories are open to readers without credentials."""
    token = who.token
    if token is None:
        if repo is not None and not repo.private and not writes:
            return None
        return Answer(401, b"Repository not found.\n", _CHALLENGE)
    if repo is None or (not token.reaches(repo) and repo.private):
        return Answer(404, b"Repository not found.\n", {"content-type": "text/plain"})
    level = "write" if writes else "read"
    if token.reaches(repo) and token.allows("contents", level):
        return None
    if not writes and not repo.private:
        return None
    return Answer(403, b"Write access to repository not granted.\n", {"content-type": "text/plain"})


async def serve(
    repo: Repository, method: str, rest: str, query: str, headers: Mapping[str, str], body: bytes
) -> Answer:
    """Run the CGI program on a request that was let in."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(repo.git.path),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_PROJECT_ROOT": str(repo.git.path),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": f"/{rest}",
        "QUERY_STRING": query,
        "REQUEST_METHOD": method,
        "CONTENT_TYPE": headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
        "GIT_PROTOCOL": headers.get("git-protocol", ""),
        "REMOTE_USER": "x-access-token",
        "REMOTE_ADDR": "127.0.0.1",
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "git", "http-backend", stdin=pipe, stdout=pipe, stderr=pipe, env=environment
    )
    output, _ = await process.communicate(body)
    head, _, content = output.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
    status = int(fields.pop("Status", "200").split(" ")[0])
    return Answer(status, content, {name.lower(): value for name, value in fields.items()})
