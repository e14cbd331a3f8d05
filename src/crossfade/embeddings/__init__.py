"""Embeddings: ids, a matrix, a modality and a space; and the formats they are read from and written to."""

from crossfade.embeddings.core import Embeddings
from crossfade.embeddings.folder import EmbeddingsWriter
from crossfade.embeddings.rows import Block, Rows

__all__ = ["Block", "Embeddings", "EmbeddingsWriter", "Rows"]
