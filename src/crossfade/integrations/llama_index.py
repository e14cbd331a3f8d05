"""LlamaIndex: an embedding by any encoder for its indices, and a retriever that follows an upgrade."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from crossfade.datasets.images import open_image
from crossfade.encoders import Encoder, Role
from crossfade.errors import ConfigError, MissingExtra
from crossfade.integrations.passages import Passages
from crossfade.stores import Where
from crossfade.upgrading import Searcher

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import Embedding
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.embeddings.multi_modal_base import MultiModalEmbedding
    from llama_index.core.schema import ImageType, NodeWithScore, QueryBundle, TextNode
except ImportError as missing:
    raise MissingExtra(
        "llama-index-core", extra="integrations", feature="crossfade.integrations.llama_index"
    ) from missing

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CrossfadeEmbedding", "CrossfadeRetriever"]

LARGEST_BATCH = 2048
"""LlamaIndex's limit."""


@final
class CrossfadeEmbedding(MultiModalEmbedding):
    """Any encoder as the embedding of a LlamaIndex index; images, too, where it has an image tower.

    With a :class:`~crossfade.integrations.ServedEncoder`, an index that an old model filled is searched by the new one from the
    cutover on. The async methods run the encoder in other threads, several at once where several are awaited. It takes no
    ``embeddings_cache``: that one knows vectors by their text alone, and would answer a query with a vector that the old model
    made, or that was made of the text as a document.

    Args:
        encoder: queries are encoded in its role ``query``, texts of nodes in its role ``document``.
        embed_batch_size: texts or images that it is given at a time, at most.
        callback_manager: see LlamaIndex's ``BaseEmbedding``.
        num_workers: batches that are encoded at once by the async methods, where it is more than 1.

    Raises:
        ConfigError: it is no encoder, or a batch is empty or too large.
    """

    _encoder: Encoder = PrivateAttr()

    def __init__(
        self,
        encoder: Encoder,
        *,
        embed_batch_size: int = 64,
        callback_manager: CallbackManager | None = None,
        num_workers: int | None = None,
    ) -> None:
        if not isinstance(encoder, Encoder):
            raise ConfigError(
                f"CrossfadeEmbedding takes an encoder; found {type(encoder).__name__}. Load one: crossfade.load_encoder."
            )
        size = embed_batch_size
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= LARGEST_BATCH:
            raise ConfigError(f"A batch must have a whole number of items, from 1 to {LARGEST_BATCH}; found {size!r}.")
        super().__init__(
            model_name=str(encoder.space),
            embed_batch_size=embed_batch_size,
            callback_manager=callback_manager or CallbackManager([]),
            num_workers=num_workers,
        )
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls it."""
        return "CrossfadeEmbedding"

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._of_texts([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._of_texts([text], "document")[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._of_texts(texts, "document")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def _get_image_embedding(self, img_file_path: ImageType) -> Embedding:
        return self._get_image_embeddings([img_file_path])[0]

    async def _aget_image_embedding(self, img_file_path: ImageType) -> Embedding:
        return await asyncio.to_thread(self._get_image_embedding, img_file_path)

    def _get_image_embeddings(self, img_file_paths: list[ImageType]) -> list[Embedding]:
        vectors: list[Embedding] = self._encoder.encode_images([_opened(each) for each in img_file_paths]).tolist()
        return vectors

    async def _aget_image_embeddings(self, img_file_paths: list[ImageType]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_image_embeddings, img_file_paths)

    def _of_texts(self, texts: list[str], role: Role) -> list[Embedding]:
        vectors: list[Embedding] = self._encoder.encode_texts(texts, role=role).tolist()
        return vectors


@final
class CrossfadeRetriever(BaseRetriever):
    """Retrieves by a :class:`~crossfade.upgrading.Searcher`: the same before a cutover, after it, while the gallery is mixed,
    at the end of an upgrade and after a rollback.

    A node's id is its row's id, as a string. A row that is deleted between the search and the reading of its text is left out.
    A query is a text, or the ``image_path`` of a bundle without a text. An ``embedding`` in a bundle is not used, since it does
    not say which model made it.

    Args:
        searcher: has the models that encode texts, and images where they are searched with.
        content: the column that holds the text; a row without one has an empty text.
        metadata_columns: the columns that become metadata.
        k: how many nodes, at most.
        where: conditions that rows must meet, such as ``{"year": {">=": 2000}}``.
        callback_manager: see LlamaIndex's ``BaseRetriever``.

    Raises:
        ConfigError: a column does not exist, or an option is none that a search takes.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        content: str,
        metadata_columns: Sequence[str] = (),
        k: int = 10,
        where: Where | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        self._passages = Passages(searcher, content=content, columns=metadata_columns, k=k, where=where)
        super().__init__(callback_manager=callback_manager)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        texts, images = query_bundle.embedding_strs, query_bundle.embedding_image
        if len(texts) + len(images) != 1:
            raise ConfigError(
                f"A search has one query: a text or an image; found {len(texts)} texts and {len(images)} images. Retrieve "
                "for each, and fuse what is found (QueryFusionRetriever)."
            )
        found = self._passages.found(text=texts[0] if texts else None, image=_opened(images[0]) if images else None)
        return [
            NodeWithScore(node=TextNode(id_=each.id, text=each.text, metadata=each.columns), score=each.score)
            for each in found
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _opened(image: ImageType) -> Image:
    """An image as LlamaIndex names it: a file, or one in memory."""
    return open_image(Path(image), item=image) if isinstance(image, str) else open_image(image.getvalue())
