"""The object store: bytes under their digest, in JetStream."""

import hashlib

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.object_store import ObjectStore

from contracts.subjects import CHANGES
from services.kit.errors import Later, Refused


def digest_of(body: bytes) -> str:
    """``sha256-`` and 64 hex digits."""
    return "sha256-" + hashlib.sha256(body).hexdigest()


class Objects:
    """Puts and gets; the name of an object is the digest of its bytes, so a second put changes nothing."""

    def __init__(self, client: Client) -> None:
        self._js = client.jetstream(timeout=10)
        self._store: ObjectStore | None = None

    async def put(self, body: bytes) -> str:
        """Store ``body`` and return its digest; ``Later`` if the store does not answer."""
        digest = digest_of(body)
        try:
            if not await self._exists(digest):
                await (await self._bucket()).put(digest, body)
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Later(
                f"the object store did not take {digest}: {error!r}", kind="log_unavailable"
            ) from error
        return digest

    async def get(self, digest: str) -> bytes:
        """The bytes behind ``digest``.

        Raises:
            Later: the store does not answer.
            Refused: there is no such object, or its bytes are not what the digest says.
        """
        try:
            body = (await (await self._bucket()).get(digest)).data
        except nats.js.errors.NotFoundError as error:
            raise Refused(f"the object store holds no {digest}", kind="object_missing") from error
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Later(
                f"the object store did not give {digest}: {error!r}", kind="log_unavailable"
            ) from error
        if body is None or digest_of(body) != digest:
            raise Refused(f"the object store's {digest} does not match its digest", kind="object_damaged")
        return body

    async def _exists(self, digest: str) -> bool:
        try:
            await (await self._bucket()).get_info(digest)
        except nats.js.errors.NotFoundError:
            return False
        return True

    async def _bucket(self) -> ObjectStore:
        if self._store is None:
            self._store = await self._js.object_store(CHANGES)
        return self._store
