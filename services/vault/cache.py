"""Installation tokens in memory: one mint at a time for each key, kept until 5 minutes before their end.

Time is counted from GitHub's answer on a monotonic clock, so that the host's clock does not matter. No
token has a known form or length; none is looked into.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

from services.vault.grants import GrantedToken

MARGIN = 300.0
"""Seconds of life that a cached token has at least."""


@dataclass(frozen=True)
class _Kept:
    grant: GrantedToken
    until: float


class TokenCache:
    """Tokens by what they open."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: dict[Hashable, _Kept] = {}
        self._minting: dict[Hashable, asyncio.Task[GrantedToken]] = {}

    async def get(
        self, key: Hashable, mint: Callable[[], Awaitable[GrantedToken]], *, rejected: str = ""
    ) -> GrantedToken:
        """The token for ``key``, minted if need be; all who ask meanwhile get the same one or its error.

        ``rejected`` is the fingerprint of a token that GitHub no longer takes: it is not given again.
        """
        now = self._clock()
        self._kept = {key: kept for key, kept in self._kept.items() if kept.until > now}
        kept = self._kept.get(key)
        if kept is not None and kept.grant.token.fingerprint() != rejected:
            return kept.grant
        task = self._minting.get(key)
        if task is None:
            task = asyncio.create_task(self._mint(key, mint))
            self._minting[key] = task
            task.add_done_callback(lambda done: self._minted(key, done))
        # shielded: one asker who leaves does not take the token from the others
        return await asyncio.shield(task)

    def clear(self) -> None:
        """Forget all tokens: the credentials behind them changed."""
        self._kept.clear()
        self._minting.clear()

    async def _mint(self, key: Hashable, mint: Callable[[], Awaitable[GrantedToken]]) -> GrantedToken:
        asked_at = self._clock()
        grant = await mint()
        if self._minting.get(key) is asyncio.current_task():
            self._kept[key] = _Kept(grant, asked_at + grant.seconds - MARGIN)
        return grant

    def _minted(self, key: Hashable, task: asyncio.Task[GrantedToken]) -> None:
        if self._minting.get(key) is task:
            del self._minting[key]
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it; nobody may wait any more
