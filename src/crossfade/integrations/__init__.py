"""Other libraries' interfaces around Crossfade, so that an application changes one line.

=============================================  =======================================================================
module                                         what an application puts in place of its own
=============================================  =======================================================================
:mod:`~crossfade.integrations.langchain`       ``Embeddings`` of a vector store, or its retriever
:mod:`~crossfade.integrations.llama_index`     ``BaseEmbedding`` of an index, or its retriever
:mod:`~crossfade.integrations.chroma`          the ``EmbeddingFunction`` of a collection
:mod:`~crossfade.integrations.sentence_transformers`  one more module of a ``SentenceTransformer``
=============================================  =======================================================================

Each imports its library, which ``pip install 'crossfade[integrations]'`` installs; this package imports none of them.
"""

from crossfade.integrations.served import ServedEncoder

__all__ = ["ServedEncoder"]
