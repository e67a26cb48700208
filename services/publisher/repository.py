"""GitHub as the publisher needs it: each step looks before it creates, so a second try finds the first."""

import base64
from typing import Any
from urllib.parse import quote

from contracts.change import Change, Written
from services.kit.errors import Refused
from services.kit.github import GitHubClient, GitHubRefused


class Repository:
    """One repository, through a client whose token holds for this step."""

    def __init__(self, client: GitHubClient, full_name: str) -> None:
        self._client = client
        self._root = f"/repos/{full_name}"
        self._owner = full_name.partition("/")[0]

    # --- comments ---------------------------------------------------------------------------------------

    async def comment(self, issue: int, marker: str, text: str) -> tuple[int, str]:
        """The comment that carries ``marker``, created if there is none: id and URL."""
        found = await self.find_comment(issue, marker)
        if found is None:
            answer = await self._client.request(
                "POST", f"{self._root}/issues/{issue}/comments", json={"body": text}
            )
            found = answer.json
        return int(found["id"]), str(found["html_url"])

    async def find_comment(self, issue: int, marker: str) -> dict[str, Any] | None:
        """The first comment by an app that carries ``marker``."""
        page = 1
        while True:
            answer = await self._client.request(
                "GET", f"{self._root}/issues/{issue}/comments", params={"per_page": 100, "page": page}
            )
            for comment in answer.json:
                # Anybody can write the marker; only an app's own comment can be edited by it.
                if marker in (comment.get("body") or "") and (comment.get("user") or {}).get("type") == "Bot":
                    return dict(comment)
            if len(answer.json) < 100:
                return None
            page += 1

    async def edit_comment(self, comment_id: int, text: str) -> str:
        """Replace a comment's text; its URL."""
        path = f"{self._root}/issues/comments/{comment_id}"
        return str((await self._client.request("PATCH", path, json={"body": text})).json["html_url"])

    # --- branch and commit ------------------------------------------------------------------------------

    async def head(self, branch: str) -> str | None:
        """The commit a branch points to, or None."""
        try:
            answer = await self._client.request("GET", f"{self._root}/git/ref/heads/{branch}")
        except GitHubRefused as refusal:
            if refusal.status == 404:
                return None
            raise
        return str(answer.json["object"]["sha"])

    async def read_commit(self, sha: str) -> tuple[str, str]:
        """Tree id and message of a commit."""
        answer = await self._client.request("GET", f"{self._root}/git/commits/{sha}")
        return str(answer.json["tree"]["sha"]), str(answer.json["message"])

    async def tree(self, base_tree: str, change: Change) -> str:
        """The tree that the change makes of ``base_tree``; ``Refused`` if GitHub's differs from ours."""
        entries: list[dict[str, Any]] = [await self._entry(written) for written in change.written]
        entries += [
            {"path": _path(path), "mode": "100644", "type": "blob", "sha": None} for path in change.deleted
        ]
        answer = await self._client.request(
            "POST", f"{self._root}/git/trees", json={"base_tree": base_tree, "tree": entries}
        )
        if answer.json["sha"] != change.tree:
            raise Refused(
                f"GitHub made tree {answer.json['sha']} of the change, not the verified {change.tree}",
                kind="tree_mismatch",
            )
        return change.tree

    async def commit(self, tree: str, parent: str, message: str) -> str:
        """A commit; creating it twice harms nothing, because nothing points to it yet."""
        body = {"message": message, "tree": tree, "parents": [parent]}
        return str((await self._client.request("POST", f"{self._root}/git/commits", json=body)).json["sha"])

    async def create_branch(self, branch: str, commit: str) -> None:
        """A branch at ``commit``; ``GitHubRefused`` (422) if it exists."""
        await self._client.request(
            "POST", f"{self._root}/git/refs", json={"ref": f"refs/heads/{branch}", "sha": commit}
        )

    # --- pull request -----------------------------------------------------------------------------------

    async def find_pull_request(self, branch: str) -> dict[str, Any] | None:
        """The newest pull request from ``branch``, in any state."""
        answer = await self._client.request(
            "GET", f"{self._root}/pulls", params={"head": f"{self._owner}:{branch}", "state": "all"}
        )
        return dict(answer.json[0]) if answer.json else None

    async def open_pull_request(self, branch: str, base: str, title: str, body: str) -> dict[str, Any]:
        """A draft from ``branch`` into ``base``; a ready one where drafts do not exist."""
        found = await self.find_pull_request(branch)
        if found is not None:
            return found
        wanted = {"title": title, "head": branch, "base": base, "body": body, "draft": True}
        try:
            return dict((await self._client.request("POST", f"{self._root}/pulls", json=wanted)).json)
        except GitHubRefused as refusal:
            if refusal.status != 422:
                raise
            found = await self.find_pull_request(branch)
            if found is not None:
                return found
            if "draft" not in refusal.message.lower():
                raise
        answer = await self._client.request("POST", f"{self._root}/pulls", json=wanted | {"draft": False})
        return dict(answer.json)

    async def _entry(self, written: Written) -> dict[str, Any]:
        entry: dict[str, Any] = {"path": _path(written.path), "mode": written.mode, "type": "blob"}
        try:
            text = written.content.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" not in text:
            return entry | {"content": text}
        body = {"content": base64.b64encode(written.content).decode(), "encoding": "base64"}
        answer = await self._client.request("POST", f"{self._root}/git/blobs", json=body)
        return entry | {"sha": answer.json["sha"]}


def _path(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        name = quote(raw)
        raise Refused(
            f"the path {name} is not UTF-8, which GitHub's API cannot carry", kind="path_not_utf8"
        ) from error
