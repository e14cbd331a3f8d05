"""Connections to Qdrant: how they are opened and closed, what its server can do, and what the errors of its client mean.

No text of an error names a key, a vector or a document: of what failed below, only the kind is told.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, final

from crossfade.errors import ConfigError, StoreChanged, StoreError, Unreachable
from crossfade.stores.qdrant_local import LocalFolder, borrow, client_class

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.exceptions import UnexpectedResponse

__all__ = ["KEY", "Connection", "PointsGone", "open_folder", "open_server", "version_of"]

T = TypeVar("T")

TIMEOUT = 60
"""Seconds for one request; the client's own five are too few for a bulk write that waits until it is applied."""

KEY = "QDRANT_API_KEY"
"""Where a server's key stands in the environment."""

SHAPE_ERRORS = ("Not existing vector name", "is not found in the collection", "Vector dimension error")
"""What Qdrant, and its local mode, say of a field that is gone or has another dimension."""


class PointsGone(StoreError):
    """Points that a request named are not there any more: it is to be made again without them."""


@final
class Connection:
    """One collection, asked through the client; every error of the client becomes one of Crossfade's.

    Attributes:
        address: where it is, without secrets.
        collection: its name.
        local: whether it lies in a folder.
    """

    def __init__(
        self,
        client: QdrantClient,
        *,
        address: str,
        collection: str,
        folder: LocalFolder | None = None,
        secret: str | None = None,
    ) -> None:
        self.address = address
        self.collection = collection
        self.local = folder is not None
        self._client = client
        self._folder = folder
        self._secret = secret
        self._lock: AbstractContextManager[object] = nullcontext() if folder is None else folder.lock
        self._closed = False

    def ask(self, request: Callable[[QdrantClient], T]) -> T:
        """What the client answers.

        Raises:
            Unreachable: the server does not answer, or refuses the credentials.
            StoreChanged: the collection or a field is gone, or has another shape.
            PointsGone: the request named points that are not there.
            StoreError: anything else.
        """
        if self._closed:
            raise StoreError(f"This handle on {self.address} was closed. Open another.")
        with self._lock:
            try:
                return request(self._client)
            except Exception as error:
                raise self._meaning(error) from None

    def write(self, request: Callable[[QdrantClient], models.UpdateResult | Sequence[models.UpdateResult]]) -> None:
        """The same for a request that changes points: it is applied when this returns."""
        from qdrant_client import models

        answer = self.ask(request)
        for result in [answer] if isinstance(answer, models.UpdateResult) else answer:
            if result.status != models.UpdateStatus.COMPLETED:
                raise StoreError(
                    f"{self.address} must apply a write before it answers; it is {result.status} only. Try again when the "
                    "server is less busy: the same write can be repeated."
                )

    def close(self) -> None:
        """Let go of it; a second time does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._folder is not None:
            self._folder.release()
        else:
            self._client.close()

    def _meaning(self, error: Exception) -> StoreError:
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        kind = type(error).__name__
        if self.local:
            return self._local_meaning(error)
        if isinstance(error, UnexpectedResponse):
            return self._refusal(error)
        if isinstance(error, ResourceExhaustedResponse):
            return StoreError(f"{self.address} takes no more requests for now (429). Try again later.")
        if isinstance(error, ResponseHandlingException):
            kind = type(error.source).__name__
            if not isinstance(error.source, ValueError):  # what cannot be parsed is a ValueError
                return Unreachable(
                    f"{self.address} must answer within {TIMEOUT} seconds, and does not ({kind}). Check that the server runs, "
                    "its host and port, and qdrant:// or qdrant+https://."
                )
        return StoreError(
            f"qdrant-client {version('qdrant-client')} cannot ask {self.address}, or read its answer ({kind}). Take a client "
            "of the server's version."
        )

    def _refusal(self, error: UnexpectedResponse) -> StoreError:
        status, said = error.status_code, self._said(error)
        if status in (401, 403):
            return Unreachable(
                f"{self.address} refuses the credentials ({status}). Set {KEY} in the environment to a key that may do this."
            )
        if status in (502, 503, 504):
            return Unreachable(f"{self.address} is not ready to answer ({status}). Try again later.")
        if status == 404 and "No point with id" in said:
            return self._points_gone()
        if status == 404:
            return self._collection_gone()
        return self._failed(f"{status}: {said}" if said else str(status))

    def _local_meaning(self, error: Exception) -> StoreError:
        if isinstance(error, KeyError):
            return self._points_gone()
        if not self._client.collection_exists(self.collection):
            return self._collection_gone()
        plain = type(error) is ValueError or isinstance(error, sqlite3.Error)  # others repeat what they were given
        return self._failed(str(error) if plain else type(error).__name__)

    def _failed(self, said: str) -> StoreError:
        if any(sign in said for sign in SHAPE_ERRORS):
            return StoreChanged(
                f"A vector field of {self.address} is gone or has another dimension than before ({said}). Find out who "
                "changed it, and open the store again."
            )
        return StoreError(f"{self.address} did not do what it was asked ({said}).")

    def _points_gone(self) -> PointsGone:
        return PointsGone(f"Points of {self.address} were deleted while they were written. Try again.")

    def _collection_gone(self) -> StoreChanged:
        return StoreChanged(
            f"{self.address} must name a collection that exists; there is no {self.collection!r}. Correct the address, or "
            "find out who deleted it."
        )

    def _said(self, error: UnexpectedResponse) -> str:
        """The server's own words, cut short; none where they are not in Qdrant's form."""
        try:
            said = str(error.structured()["status"]["error"])
        except (ValueError, KeyError, TypeError):
            return ""
        return (said.replace(self._secret, "…") if self._secret else said)[:200]


def open_folder(folder: Path, collection: str, *, address: str) -> Connection:
    """A collection in a local folder; see :func:`borrow`."""
    shared = borrow(folder)
    return Connection(shared.client, address=address, collection=collection, folder=shared)


def open_server(
    host: str, port: int, collection: str, *, https: bool, prefix: str, secret: str | None, address: str
) -> Connection:
    """A collection of a server; nothing is asked of it yet.

    Raises:
        MissingExtra: the client is not installed.
        ConfigError: the key cannot stand in a header.
    """
    make = client_class()
    if secret is not None and not (secret.isascii() and secret.isprintable()):
        raise ConfigError(
            f"{KEY} must be printable ASCII; it has another character, maybe the end of a line. Correct it."
        )
    client = make(
        host=f"[{host}]" if ":" in host else host,
        port=port,
        https=https,
        prefix=prefix or None,
        api_key=secret,
        timeout=TIMEOUT,
        check_compatibility=False,  # it would ask from a thread of its own, and warn there
    )
    return Connection(client, address=address, collection=collection, secret=secret)


def version_of(connection: Connection) -> tuple[int, int] | None:
    """Major and minor version of the server; None where a gateway keeps it to itself.

    Raises:
        Unreachable: the server does not answer.
    """
    try:
        said = connection.ask(lambda client: client.info()).version
    except Unreachable:
        raise
    except StoreError:
        return None
    found = re.match(r"(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None
