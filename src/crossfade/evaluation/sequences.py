"""evaluate_sequence(): versions v_1 … v_T of a model, each asking every gallery that an earlier one stored.

::

    M_ij   the metric of version i's queries, mapped into version j's space, on the gallery that version j stored; j ≤ i
    AC     the share of pairs i > j with M_ij > M_jj, strictly
    AM     the mean of M_ij over i ≥ j

Where an adapter v_i → v_j is given, it serves M_ij; where none is, the adapters that lead there in the fewest steps. Where
both the direct adapter and a longer way are given, the longest way is measured too, so that the cost of a chain shows: how
far M falls against the direct map, and the cosine between what the two make of one query.

Every figure has one interval, of one set of resamples of the queries: all versions answer the same queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.errors import EvaluationError
from crossfade.evaluation.intervals import Bootstrap
from crossfade.evaluation.leakage import leakage_warning
from crossfade.evaluation.metrics import parse_metric
from crossfade.evaluation.ranks import measure
from crossfade.evaluation.relevance import Judgements, Relevance
from crossfade.evaluation.result import Estimate
from crossfade.evaluation.sequence_result import (
    CellResult,
    ChainCost,
    ChainGrowth,
    SequenceDirection,
    SequenceEvaluation,
)
from crossfade.evaluation.systems import AdapterLike, Sets, by_modality
from crossfade.evaluation.versions import average_compatibility, average_multimodel_accuracy
from crossfade.evaluation.ways import Way, Ways
from crossfade.spaces import Modality, Space

__all__ = ["ModelVersion", "evaluate_sequence"]

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModelVersion:
    """One version: what it makes of the queries, and the gallery that it stored, one set a modality each, in its space."""

    queries: Sets
    gallery: Sets
    name: str = ""


def evaluate_sequence(
    versions: Sequence[ModelVersion],
    adapters: Sequence[AdapterLike],
    *,
    relevant: Relevance,
    metric: str | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> SequenceEvaluation:
    """Measure the whole lower-triangular matrix of a sequence of versions, and what chains of adapters cost.

    Args:
        versions: at least two, the oldest first, each in a space of its own. All hold the same queries; a gallery is what
            the version stored, and galleries may differ.
        adapters: each from a version to an earlier one, consecutive or not; in any order.
        relevant: what is right for what.
        metric: ``R@K``, ``CMC@K``, ``mAP``, ``nDCG@K`` or ``MRR``; by default the first that suits ``relevant``, K = 1.
        level: confidence level of every interval.
        resamples: bootstrap resamples behind every interval.
        seed: of the bootstrap.

    Raises:
        SpaceMismatch: the sets of a version live in several spaces, or an adapter maps from or to a space of no version.
        EvaluationError: no adapters lead from a version to an earlier one, queries are not the same, an adapter needs two
            encoders, nothing can be evaluated, or an option is out of range.
        InvalidVectors: a vector is not finite, or is zero under cosine.
    """
    first = relevant.metrics[0]
    name = parse_metric(metric or (f"{first}1" if first.endswith("@") else first)).name
    stored = [_Version.of(version, number) for number, version in enumerate(versions, start=1)]
    ways = Ways([version.space for version in stored], adapters)
    warnings: list[str] = []
    unknown = [a for a in adapters if a.provenance is None or len(a.provenance.fitted_on) == 0]
    if unknown:
        warnings.append(
            f"Nothing says which items {len(unknown)} of {len(adapters)} adapters were fitted on, so leakage could not be "
            "checked for them."
        )
    directions = []
    for asked in stored[0].queries:
        for answered in stored[0].gallery:
            direction = _Direction.of(stored, ways, asked, answered, relevant, warnings)
            if direction is not None:
                directions.append(direction.result(name, level, resamples, seed))
    if not directions:
        raise EvaluationError(
            f"No direction can be evaluated: the judgements name no right answer in every gallery. {' '.join(warnings)} "
            "Check that they use the same ids."
        )
    return SequenceEvaluation(
        versions=tuple(version.name for version in stored),
        metric=name,
        directions=tuple(directions),
        warnings=tuple(dict.fromkeys(warnings)),
        level=level,
        resamples=resamples,
        seed=seed,
    )


@dataclass(frozen=True)
class _Version:
    """A version's sets by modality, all in one space."""

    name: str
    space: Space
    queries: dict[Modality, Embeddings]
    gallery: dict[Modality, Embeddings]

    @classmethod
    def of(cls, version: ModelVersion, number: int) -> _Version:
        name = version.name or f"v{number}"
        for what, sets in (("queries", version.queries), ("gallery", version.gallery)):
            if not isinstance(sets, Embeddings) and not sets:
                raise EvaluationError(
                    f"Every version must have queries and a gallery; {name} has no {what}. Encode them."
                )
        space = version.gallery.space if isinstance(version.gallery, Embeddings) else version.gallery[0].space
        queries = by_modality(version.queries, space, what=f"The queries of {name}", swapped=space)
        return cls(
            name, space, queries, by_modality(version.gallery, space, what=f"The gallery of {name}", swapped=space)
        )


@dataclass(frozen=True)
class _Direction:
    """Queries of one modality on galleries of one: row q of every version's queries is the same query.

    Attributes:
        judgements: of those queries of each gallery that have a right answer in it.
        rows: the numbers of these queries, for each gallery.
        groups: [q] queries that ask for the same items in every gallery.
    """

    name: str
    asked: Modality
    ways: Ways
    queries: tuple[Embeddings, ...]
    galleries: tuple[Embeddings, ...]
    judgements: tuple[Judgements, ...]
    rows: tuple[npt.NDArray[np.int64], ...]
    groups: npt.NDArray[np.int64]
    _mapped: dict[Way, Embeddings] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        versions: Sequence[_Version],
        ways: Ways,
        asked: Modality,
        answered: Modality,
        relevant: Relevance,
        warnings: list[str],
    ) -> _Direction | None:
        """None where it cannot be evaluated over the whole sequence; adds to ``warnings`` why."""
        name = f"{asked}→{answered}"
        if relevant.judge(versions[0].queries[asked], versions[0].gallery[answered]) is None:
            return None
        without = [v.name for v in versions if asked not in v.queries or answered not in v.gallery]
        if without:
            warnings.append(f"{name} is left out: {', '.join(without)} did not bring both sides of it.")
            return None
        queries = [version.queries[asked] for version in versions]
        galleries = [version.gallery[answered] for version in versions]
        found = [relevant.judge(queries[0], gallery) for gallery in galleries]
        judged = [judgements for judgements in found if judgements is not None]
        unmapped = ways.not_mapping(asked)
        if unmapped:
            warnings.append(
                f"{name} is left out: {', '.join(unmapped)} cannot be reached by adapters of {asked} vectors."
            )
            return None
        answerable = np.stack([judgements.answerable() for judgements in judged], axis=1)
        if not answerable.any(axis=0).all():
            nowhere = versions[int(np.flatnonzero(~answerable.any(axis=0))[0])].name
            warnings.append(f"{name} is left out: no query has a right answer in the gallery of {nowhere}.")
            return None
        for version, column in zip(versions, answerable.T, strict=True):
            if not column.all():
                warnings.append(
                    f"{name}: {int((~column).sum())} of {len(column)} queries have no right answer in the gallery of "
                    f"{version.name} and are left out there."
                )
        kept = np.flatnonzero(answerable.any(axis=1))
        joined = [
            _same_queries(other, queries[0].select(kept), version.name)
            for other, version in zip(queries, versions, strict=True)
        ]
        answerable = answerable[kept]
        judged = [judgements.select(kept) for judgements in judged]
        rows = [np.flatnonzero(column) for column in answerable.T]
        asking = np.where(answerable, np.stack([judgements.groups for judgements in judged], axis=1), -1)
        direction = cls(
            name=name,
            asked=asked,
            ways=ways,
            queries=tuple(joined),
            galleries=tuple(galleries),
            judgements=tuple(judgements.select(chosen) for judgements, chosen in zip(judged, rows, strict=True)),
            rows=tuple(rows),
            groups=np.unique(asking, axis=0, return_inverse=True)[1].ravel(),
        )
        direction._warn_of_leaks(warnings)
        return direction

    def _warn_of_leaks(self, warnings: list[str]) -> None:
        for j, (gallery, judgements) in enumerate(zip(self.galleries, self.judgements, strict=True)):
            leak = leakage_warning(self.queries[j].select(self.rows[j]), gallery, judgements, self.ways.fitted_on())
            if leak is not None:
                warnings.append(leak)
                return

    def result(self, metric: str, level: float, resamples: int, seed: int) -> SequenceDirection:
        """Every cell, AC, AM and the cost of chains."""
        bootstrap = Bootstrap(self.groups, resamples=resamples, level=level, seed=seed)
        means = _Means(bootstrap)
        served, chains = {}, {}
        for newer in range(1, len(self.queries) + 1):
            for older in range(1, newer + 1):
                rows = self.rows[older - 1]
                way = self.ways.shortest(newer, older, self.asked)
                served[newer, older] = means.add(self._measured(way, metric), rows)
                long = self.ways.longest(newer, older, self.asked)
                if len(way) == 2 and len(long) > 2:
                    chains[newer, older] = (
                        long,
                        means.add(self._measured(long, metric), rows),
                        means.add(_cosines(self._through(long), self._through(way))[rows], rows),
                    )
        table = means.table()
        costs = {
            cell: ChainCost(way, table.mean([score]), table.mean([served[cell]], [score]), table.mean([cosine]))
            for cell, (way, score, cosine) in chains.items()
        }
        cells = tuple(
            CellResult(
                newer=newer,
                older=older,
                way=self.ways.shortest(newer, older, self.asked),
                score=table.mean([column]),
                gain=None if newer == older else table.mean([column], [served[older, older]]),
                chain=costs.get((newer, older)),
            )
            for (newer, older), column in served.items()
        )
        growth = []
        for length in sorted({len(way) for way, _, _ in chains.values()}):
            alike = [cell for cell, (way, _, _) in chains.items() if len(way) == length]
            scores, cosines = [chains[cell][1] for cell in alike], [chains[cell][2] for cell in alike]
            drop = table.mean([served[cell] for cell in alike], scores)
            growth.append(ChainGrowth(length - 1, len(alike), drop, table.mean(cosines)))
        matrix = np.full((len(self.queries), len(self.queries)), np.nan)
        for cell in cells:
            matrix[cell.newer - 1, cell.older - 1] = cell.score.value
        later = [(column, served[older, older]) for (newer, older), column in served.items() if newer > older]
        above = np.mean([table.resampled[:, column] > table.resampled[:, own] for column, own in later], axis=0)
        accuracy = table.mean(list(served.values()))
        return SequenceDirection(
            name=self.name,
            queries=len(self.groups),
            cells=cells,
            compatibility=bootstrap.estimate(average_compatibility(matrix), above),
            accuracy=Estimate(average_multimodel_accuracy(matrix), accuracy.low, accuracy.high),
            growth=tuple(growth),
        )

    def _through(self, way: Way) -> Embeddings:
        """The first version's queries through every adapter of a way."""
        if len(way) == 1:
            return self.queries[way[0] - 1]
        if way not in self._mapped:
            self._mapped[way] = self.ways.adapters[way[-2:]].transform(self._through(way[:-1]))
        return self._mapped[way]

    def _measured(self, way: Way, metric: str) -> Values:
        """The metric of the queries that have a right answer in the last version's gallery, in order."""
        newest, stored = self._through(way), way[-1] - 1
        asking = newest if len(self.rows[stored]) == len(newest) else newest.select(self.rows[stored])
        return measure(asking, self.galleries[stored], self.judgements[stored], metrics=[metric]).values[metric]


class _Means:
    """Columns of one value a query, each known for some of the queries; their means share one set of resamples."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self.bootstrap = bootstrap
        self.values: list[Values] = []
        self.known: list[Values] = []

    def add(self, values: Values, rows: npt.NDArray[np.int64]) -> int:
        """Add a column that is known for ``rows``; returns its number."""
        queries = len(self.bootstrap.group)
        self.values.append(np.zeros(queries))
        self.known.append(np.zeros(queries))
        self.values[-1][rows] = values
        self.known[-1][rows] = 1.0
        return len(self.values) - 1

    def table(self) -> _Table:
        """The mean of each column over its known values, as it is and in each resample."""
        values, known = np.stack(self.values, axis=1), np.stack(self.known, axis=1)
        whole = values.sum(axis=0) / known.sum(axis=0)
        sums, shares = self.bootstrap.means(values), self.bootstrap.means(known)
        # A resample without a known value says nothing about the column, and repeats what the sample says.
        resampled = np.where(shares > 0, sums / np.where(shares > 0, shares, 1.0), whole)
        return _Table(self.bootstrap, whole, resampled)


@dataclass(frozen=True)
class _Table:
    """Means of columns [c], and of each resample [resamples, c]."""

    bootstrap: Bootstrap
    whole: Values
    resampled: Values

    def mean(self, columns: Sequence[int], minus: Sequence[int] | None = None) -> Estimate:
        """The mean of some columns, or of their differences to others."""
        chosen = list(columns)
        value, resampled = self.whole[chosen].mean(), self.resampled[:, chosen].mean(axis=1)
        if minus is not None:
            others = list(minus)
            value, resampled = value - self.whole[others].mean(), resampled - self.resampled[:, others].mean(axis=1)
        return self.bootstrap.estimate(float(value), resampled)


def _same_queries(version: Embeddings, reference: Embeddings, name: str) -> Embeddings:
    """One version's queries in the order of ``reference``."""
    rows = version.locate(reference.ids)
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise EvaluationError(
            f"Every version must hold the same queries; {len(missing)} of {len(rows)} {reference.modality} queries are not "
            f"among those of {name}, the first is {str(reference.ids[missing[0]])!r}. Encode them with it too."
        )
    return version.select(rows)


def _cosines(chained: Embeddings, direct: Embeddings) -> Values:
    """The cosine of each query's two vectors, [q]; 0 where one has no direction."""
    found = []
    for a, b in zip(chained.blocks(), direct.blocks(), strict=True):
        x, y = a.matrix.astype(np.float64), b.matrix.astype(np.float64)
        norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        found.append(np.einsum("ij,ij->i", x, y) / np.where(norms > 0, norms, 1.0))
    return np.concatenate(found)
