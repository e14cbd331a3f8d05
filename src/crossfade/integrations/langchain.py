"""LangChain: ``Embeddings`` by any encoder for its vector stores, and a retriever that follows an upgrade."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
import numpy.typing as npt

from crossfade.datasets.images import open_image
from crossfade.encoders import Encoder
from crossfade.errors import ConfigError, MissingExtra
from crossfade.integrations.passages import Passages
from crossfade.stores import Where
from crossfade.upgrading import Searcher

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables.config import run_in_executor
    from pydantic import PrivateAttr
except ImportError as missing:
    raise MissingExtra("langchain-core", extra="integrations", feature="crossfade.integrations.langchain") from missing

__all__ = ["CrossfadeEmbeddings", "CrossfadeRetriever"]

Item = TypeVar("Item")

SCORE = "score"
"""Where a document's metadata has its score."""


@final
class CrossfadeEmbeddings(Embeddings):
    """Any encoder as the embeddings of a LangChain vector store.

    With a :class:`~crossfade.integrations.ServedEncoder`, a vector store that an old model filled is searched by the new one
    from the cutover on. The async methods run the encoder in other threads, several at once where several are awaited.

    Args:
        encoder: queries are encoded in its role ``query``, documents in its role ``document``.
        batch_size: texts or images that it is given at a time, at most.

    Raises:
        ConfigError: it is no encoder, or a batch is empty.
    """

    def __init__(self, encoder: Encoder, *, batch_size: int = 64) -> None:
        if not isinstance(encoder, Encoder):
            raise ConfigError(
                f"CrossfadeEmbeddings takes an encoder; found {type(encoder).__name__}. Load one: crossfade.load_encoder."
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"A batch must have a whole number of items, at least 1; found {batch_size!r}.")
        self.encoder, self.batch_size = encoder, batch_size

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector a text, to be stored.

        Raises:
            EncoderError: the encoder has no text tower.
        """
        return self._embedded(texts, self.encoder.encode_texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a text, to be searched with.

        Raises:
            EncoderError: the encoder has no text tower.
        """
        (vector,) = self.encoder.encode_texts([text], role="query").tolist()
        return list(vector)

    def embed_image(self, uris: Sequence[str | Path]) -> list[list[float]]:
        """One vector an image, by the name that LangChain's vector stores look for.

        Args:
            uris: files.

        Raises:
            EncoderError: the encoder has no image tower.
            CorruptItem: a file is missing, or no image.
        """
        return self._embedded(
            uris, lambda batch: self.encoder.encode_images([open_image(Path(each), item=str(each)) for each in batch])
        )

    def _embedded(
        self, items: Sequence[Item], encode: Callable[[Sequence[Item]], npt.NDArray[np.float32]]
    ) -> list[list[float]]:
        vectors: list[list[float]] = []
        for start in range(0, len(items), self.batch_size):
            vectors += encode(items[start : start + self.batch_size]).tolist()
        return vectors

    def __repr__(self) -> str:
        return f"CrossfadeEmbeddings({self.encoder!r})"


@final
class CrossfadeRetriever(BaseRetriever):
    """Retrieves by a :class:`~crossfade.upgrading.Searcher`: the same before a cutover, after it, while the gallery is mixed,
    at the end of an upgrade and after a rollback.

    A document's ``id`` is its row's id, as a string; ``metadata["score"]`` is its score. A row that is deleted between the search
    and the reading of its text is left out. ``k`` and ``where`` can also be given to one call: ``retriever.invoke(text, k=3)``.

    Args:
        searcher: has the models that encode texts.
        content: the column that holds the text; a row without one has an empty text.
        metadata_columns: the columns that become metadata.
        k: how many documents, at most.
        where: conditions that rows must meet, such as ``{"year": {">=": 2000}}``.
        name: see LangChain's ``BaseRetriever``, as for the others.
        tags: for callbacks.
        metadata: for callbacks; no document's.

    Raises:
        ConfigError: a column does not exist or is named ``score``, or an option is none that a search takes.
    """

    searcher: Searcher
    content: str
    metadata_columns: tuple[str, ...]
    k: int
    where: Any
    _passages: Passages = PrivateAttr()

    def __init__(
        self,
        searcher: Searcher,
        *,
        content: str,
        metadata_columns: Sequence[str] = (),
        k: int = 10,
        where: Where | None = None,
        name: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        if SCORE in metadata_columns:
            raise ConfigError(f"A document's metadata has its score as {SCORE!r}. Leave that column out.")
        passages = Passages(searcher, content=content, columns=metadata_columns, k=k, where=where)
        super().__init__(  # type: ignore[call-arg]  # fields of this class, which a type checker does not see in its base's
            searcher=searcher,
            content=content,
            metadata_columns=tuple(metadata_columns),
            k=k,
            where=where,
            name=name,
            tags=tags,
            metadata=metadata,
        )
        self._passages = passages

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        where: Where | None = None,
    ) -> list[Document]:
        return [
            Document(each.text, id=each.id, metadata=each.columns | {SCORE: each.score})
            for each in self._passages.found(text=query, k=k, where=where)
        ]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        where: Where | None = None,
    ) -> list[Document]:
        return await run_in_executor(
            None, self._get_relevant_documents, query, run_manager=run_manager.get_sync(), k=k, where=where
        )
