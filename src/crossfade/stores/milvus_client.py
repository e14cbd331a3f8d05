"""Milvus' own client, whose errors become Crossfade's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, final

from crossfade.errors import MissingExtra, StoreChanged, StoreError, Unreachable
from crossfade.stores.backend import Query
from crossfade.stores.milvus_shape import METRICS, Shape, shape_of

__all__ = ["Client", "Row"]

Row = dict[str, Any]
"""A row as the client gives and takes it."""

CONNECT_TIMEOUT = 10
TIMEOUT = 120
"""Seconds after which a call is given up."""

NOT_FOUND = (100, 800)
"""Codes of Milvus: there is no such collection, or no such database."""

NOT_LOADED = 101

UNREACHABLE = (2, "UNAVAILABLE", "UNAUTHENTICATED", "PERMISSION_DENIED", "DEADLINE_EXCEEDED")
"""Codes of a connection that failed: the client's own, and gRPC's."""


@final
class Client:
    """Calls about one collection.

    Args:
        uri: of the server, or the file's path.
        collection: its name.
        address: for messages.
        token: for the server; stands in no message.
        database: its name; empty for the default one.
        embedded: whether the URI is a file.

    Attributes:
        lite: whether Milvus Lite answers.
        shape: of the collection, as it was last described.
    """

    def __init__(self, uri: str, collection: str, *, address: str, token: str, database: str, embedded: bool) -> None:
        self._address, self._token, self._collection = address, token, collection
        self._pymilvus = _package(embedded)
        with self._translated("open", compare=False):
            self._client = self._pymilvus.MilvusClient(uri, token=token, db_name=database, timeout=CONNECT_TIMEOUT)
            self.lite = "lite" in str(self._client.get_server_version(timeout=TIMEOUT)).lower()
        self.shape = self.describe()
        if embedded:
            with self._translated("load", compare=False):
                self._client.load_collection(collection, timeout=TIMEOUT)

    def describe(self) -> Shape:
        """The shape of the collection at this moment."""
        with self._translated("describe itself", compare=False):
            said = self._client.describe_collection(self._collection, timeout=TIMEOUT)
            names = self._client.list_indexes(self._collection, timeout=TIMEOUT)
            indexes = [self._client.describe_index(self._collection, name, timeout=TIMEOUT) for name in names]
        self.shape = shape_of(said, [index for index in indexes if index], address=self._address, lite=self.lite)
        return self.shape

    def has_named_partitions(self) -> bool:
        """Whether there are others than the one that all collections have."""
        with self._translated("list its partitions"):
            return len(self._client.list_partitions(self._collection, timeout=TIMEOUT)) > 1

    def query(self, test: str, output: list[str], *, limit: int | None = None, ordered: bool = False) -> list[Row]:
        """Rows that meet an expression; ``ordered`` asks for the lowest ids first, as the client's own iterator "
        "does."""
        with self._translated("give rows"):
            answer = self._client.query(
                self._collection,
                filter=test,
                output_fields=output,
                limit=limit,
                iterator="True" if ordered else None,
                reduce_stop_for_best="True" if ordered else False,
                consistency_level="Strong",
                strict_float32=True,
                timeout=TIMEOUT,
            )
            return list(answer)

    def search(self, query: Query, test: str) -> list[tuple[list[Any], list[float]]]:
        """The ids and what Milvus calls distances of the best rows of each query that meet an expression."""
        with self._translated("search"):
            answers = self._client.search(
                self._collection,
                data=query.vectors,
                anns_field=query.field,
                filter=test,
                limit=query.k,
                output_fields=[self.shape.primary],
                search_params={"metric_type": METRICS[query.metric]},
                consistency_level="Strong",
                timeout=TIMEOUT,
            )
            return [(list(answer.ids), list(answer.distances)) for answer in answers]

    def upsert(self, rows: list[Row]) -> None:
        """Insert or replace rows."""
        with self._translated("write rows", private=True):
            self._client.upsert(self._collection, rows, timeout=TIMEOUT)

    def delete(self, test: str) -> None:
        """Delete the rows that meet an expression."""
        with self._translated("delete rows"):
            self._client.delete(self._collection, filter=test, timeout=TIMEOUT)

    def properties(self) -> Mapping[str, str]:
        """The properties of the collection."""
        with self._translated("give its properties"):
            found: Mapping[str, str] = self._client.describe_collection(self._collection, timeout=TIMEOUT)["properties"]
            return found

    def set_property(self, name: str, value: str | None) -> None:
        """Set or drop a property of the collection."""
        with self._translated("change a property"):
            if value is None:
                self._client.drop_collection_properties(self._collection, [name], timeout=TIMEOUT)
            else:
                self._client.alter_collection_properties(self._collection, {name: value}, timeout=TIMEOUT)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    @contextmanager
    def _translated(self, doing: str, *, private: bool = False, compare: bool = True) -> Iterator[None]:
        """Raise the client's errors as Crossfade's.

        Args:
            doing: what was asked for.
            private: whether the client may quote what was sent; then it is not repeated.
            compare: whether to find out by the collection's shape what is wrong.
        """
        known = self._pymilvus.MilvusException, import_module("grpc").RpcError, ValueError
        try:
            yield
        except known as error:  # a ValueError where an answer cannot be read
            raise self._told(error, doing, private, compare) from None

    def _told(self, error: Exception, doing: str, private: bool, compare: bool) -> StoreError:
        code = _code(error)
        if code in UNREACHABLE or type(error).__name__ == "ConnectionConfigException":
            return Unreachable(
                f"{self._address} must answer, and accept the token in MILVUS_TOKEN if it asks for one; it does not. A "
                "file of Milvus Lite must be of version 3 or later, and closed in every other process."
            )
        if code in NOT_FOUND:
            return StoreChanged(f"{self._address} must name a collection that exists; there is none (any more).")
        if code == NOT_LOADED:
            return StoreError(
                f"{self._address} must be loaded before it is read; it is not. Call load_collection of Milvus' own "
                "client."
            )
        if compare:
            before = self.shape
            try:
                changed = self.describe() != before
            except StoreError as closer:
                return closer
            if changed:
                return StoreChanged(f"{self._address} has another shape than when it was opened. Open it again.")
        reason = str(getattr(error, "message", "") or type(error).__name__)
        secrets = [self._token, *self._token.split(":")]
        if private or any(secret and secret in reason for secret in secrets):
            reason = (
                "what it says may quote the rows; texts must fit their columns, and what may not be null must be given"
            )
        return StoreError(f"{self._address} did not {doing} (code {code}: {reason}).")


def _code(error: Exception) -> object:
    """The number that Milvus gives, or the name of gRPC's status."""
    code = getattr(error, "code", None)
    code = code() if callable(code) else code
    return getattr(code, "name", code)


def _package(embedded: bool) -> Any:
    try:
        package = import_module("pymilvus")
    except ImportError as error:
        raise MissingExtra("pymilvus", extra="milvus", feature="A store in Milvus") from error
    if embedded and find_spec("milvus_lite") is None:
        raise MissingExtra("milvus-lite", extra="milvus", feature="A file of Milvus Lite")
    return package
