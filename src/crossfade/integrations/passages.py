"""What a retriever of another library gives: the texts that a search found, with the columns that describe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from crossfade.errors import ConfigError
from crossfade.stores import Value, Where
from crossfade.stores.checks import require_k
from crossfade.stores.conditions import conditions
from crossfade.upgrading import Searcher

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Passage", "Passages"]


@dataclass(frozen=True, slots=True)
class Passage:
    """A row that was found.

    Attributes:
        id: its id, as a string.
        text: its text; empty where it has none.
        columns: column → its value.
        score: see :class:`~crossfade.stores.Hits`.
    """

    id: str
    text: str
    columns: dict[str, Value]
    score: float


@final
class Passages:
    """Searches, and reads what was found.

    Args:
        searcher: has the models that encode queries.
        content: the column that holds the text.
        columns: those that describe a row.
        k: how many rows, at most.
        where: conditions that rows must meet.

    Raises:
        ConfigError: a column does not exist, or an option is none that a search takes.
    """

    def __init__(
        self, searcher: Searcher, *, content: str, columns: Sequence[str], k: int, where: Where | None
    ) -> None:
        if not isinstance(searcher, Searcher):
            raise ConfigError(f"CrossfadeRetriever takes a Searcher; found {type(searcher).__name__}.")
        if isinstance(columns, str):
            raise ConfigError(f"metadata_columns must be several names; found {columns!r}. Give a list.")
        require_k(k)
        conditions(where)
        searcher.store.fetch([], columns=[content, *columns, *(where or {})])  # refuses what does not exist
        self._searcher, self._content, self._columns = searcher, content, tuple(columns)
        self._k, self._where = k, where

    def found(
        self,
        *,
        text: str | None = None,
        image: Image | None = None,
        k: int | None = None,
        where: Where | None = None,
    ) -> list[Passage]:
        """What is found, best first, without rows that were deleted since; ``k`` and ``where`` in place of the usual ones."""
        hits = self._searcher.search(
            text=text, image=image, k=self._k if k is None else k, where=self._where if where is None else where
        )
        scores = dict(zip(hits.ids, hits.scores.tolist(), strict=True))
        rows = self._searcher.store.fetch(hits.ids, columns=list(dict.fromkeys([self._content, *self._columns])))
        texts = rows.columns[self._content]
        return [
            Passage(
                str(id_),
                "" if texts[number] is None else str(texts[number]),
                {name: rows.columns[name][number] for name in self._columns},
                scores[id_],
            )
            for number, id_ in enumerate(rows.ids)
        ]
