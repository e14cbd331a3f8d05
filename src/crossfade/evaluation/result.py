"""What an evaluation found: plain values that print, save as JSON and draw.

Systems are named query side / gallery side. ``old`` and ``new`` are the models' own vectors, ``mapped`` is the new model's
vectors through the adapter:

==================  ==========================================================================================
``old/old``         what runs today
``mapped/old``      the upgrade: new queries through the adapter, old gallery untouched (the criterion's M(new→old))
``new/old``         the new queries on the old gallery with no map, where the dimensions allow it
``old/mapped``      old clients' queries on items that the new model added through the adapter
``mapped/mapped``   the new model through the adapter on both sides
``new/new``         a full re-index: what the upgrade is measured against
==================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from crossfade.errors import FormatError

__all__ = [
    "SYSTEMS",
    "DirectionResult",
    "Estimate",
    "Evaluation",
    "Flips",
    "Hubness",
    "Outcome",
    "QueryChange",
    "Rival",
    "Score",
    "System",
    "Verdict",
]

System = Literal["old/old", "mapped/old", "new/old", "old/mapped", "mapped/mapped", "new/new"]
SYSTEMS: tuple[System, ...] = ("old/old", "mapped/old", "new/old", "old/mapped", "mapped/mapped", "new/new")
Outcome = Literal["compatible", "not compatible", "undecided"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries with its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Score:
    """One system in one direction: metric name (``R@1``, ``mAP``, ``nDCG@10``, ``CMC@5``, …) → estimate."""

    system: System
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class QueryChange:
    """One query under the old and the upgraded system: the rank (from 1) of its first right answer in each, and in new/new."""

    id: str
    old_rank: int
    mapped_rank: int
    new_rank: int | None = None


@dataclass(frozen=True, slots=True)
class Flips:
    """Queries that the upgrade breaks or mends at ``metric`` (PCT, 2011.09161).

    Attributes:
        negative: share of all queries that were right before and are wrong after.
        positive: share of all queries that were wrong before and are right after.
        worst: the negative flips that fell furthest.
        best: the positive flips that rose furthest.
    """

    metric: str
    negative: Estimate
    positive: Estimate
    worst: tuple[QueryChange, ...]
    best: tuple[QueryChange, ...]


@dataclass(frozen=True, slots=True)
class Hubness:
    """Every system once more, ranked with a hubness correction; no verdict looks at these numbers.

    Attributes:
        correction: its name and its options.
        bank: how many logged queries it was made from.
        scores: as those of the direction.
        changes: the deciding metric with the correction minus without, paired over queries.
    """

    correction: Mapping[str, Any]
    bank: int
    scores: Mapping[System, Score]
    changes: Mapping[System, Estimate]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Is M(mapped/old) > M(old/old), strictly, with an interval that says so?

    Attributes:
        outcome: compatible (the interval of the difference lies above zero), not compatible (at or below), or undecided.
        metric: the metric that decides.
        difference: M(mapped/old) − M(old/old), paired over queries; None where old/old could not be measured, because the
            old model's vectors of the queries are not at hand.
        queries: how many queries were evaluated.
        more_queries: how many more queries of this kind would be expected to decide; None where it is decided, or where the
            difference is too close to zero for any number to help.
        sentence: all of this in plain words.
    """

    outcome: Outcome
    metric: str
    difference: Estimate | None
    queries: int
    more_queries: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Rival:
    """Another adapter in the place of mapped/old: the same queries, the same gallery, another method.

    Attributes:
        metrics: as those of a score.
        verdict: on it, as if it were the upgrade.
        two_encoders: whether its queries also need the old model.
    """

    metrics: Mapping[str, Estimate]
    verdict: Verdict
    two_encoders: bool = False


@dataclass(frozen=True, slots=True)
class DirectionResult:
    """One direction of retrieval, such as ``text→image``.

    Attributes:
        name: query modality → gallery modality.
        queries: how many queries.
        gallery: how many gallery items.
        metric: the metric that decides.
        scores: every system that could be evaluated.
        gain: (M(mapped/old) − M(old/old)) / (M(new/new) − M(old/old)), where new/new is known and above old/old (BCT).
        flips: between old/old and mapped/old, where both are known.
        verdict: for this direction.
        slices: slice column → slice value → system → the deciding metric; and how many queries are in the slice.
        slice_sizes: slice column → slice value → queries in it.
        hubness: the systems with a hubness correction, where a bank of queries was given.
        rivals: name → another adapter on the same queries, where others were compared.
    """

    name: str
    queries: int
    gallery: int
    metric: str
    scores: Mapping[System, Score]
    gain: Estimate | None
    flips: Flips | None
    verdict: Verdict
    slices: Mapping[str, Mapping[str, Mapping[System, Estimate]]] = field(default_factory=dict)
    slice_sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    hubness: Hubness | None = None
    rivals: Mapping[str, Rival] = field(default_factory=dict)


_REBUILT = ("directions", "verdict", "warnings", "notes")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that :func:`crossfade.evaluate` found.

    Attributes:
        source: the new model's space, as a dictionary.
        target: the old model's space, as a dictionary.
        method: name of the method that made the adapter, and ``config`` its hyper-parameters.
        directions: one result a direction.
        verdict: compatible only where every direction is; not compatible where any is; undecided otherwise.
        warnings: leakage and other doubts, in words; shown wherever the numbers are.
        level: confidence level of every interval, for example 0.95.
        resamples: bootstrap resamples behind every interval.
        seed: of the bootstrap.
        notes: what else a reader should know and need not doubt, such as how many queries were left out.
    """

    source: Mapping[str, Any]
    target: Mapping[str, Any]
    method: str
    config: Mapping[str, Any]
    directions: tuple[DirectionResult, ...]
    verdict: Verdict
    warnings: tuple[str, ...]
    level: float
    resamples: int
    seed: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """The reverse of :meth:`to_dict`.

        Raises:
            FormatError: a field is missing or unknown.
        """
        try:
            directions = tuple(_direction(value) for value in values["directions"])
            rest = {name: value for name, value in values.items() if name not in _REBUILT}
            verdict = _verdict(values["verdict"])
            return cls(
                **rest,
                directions=directions,
                verdict=verdict,
                warnings=tuple(values["warnings"]),
                notes=tuple(values.get("notes", ())),
            )
        except (KeyError, TypeError) as error:
            raise FormatError(
                f"An evaluation must have the fields of crossfade {cls.__name__}; found otherwise ({error})."
            ) from error


def _verdict(values: Mapping[str, Any]) -> Verdict:
    return Verdict(
        **{**values, "difference": None if values["difference"] is None else Estimate(**values["difference"])}
    )


def _flips(values: Mapping[str, Any]) -> Flips:
    return Flips(
        metric=values["metric"],
        negative=Estimate(**values["negative"]),
        positive=Estimate(**values["positive"]),
        worst=tuple(QueryChange(**change) for change in values["worst"]),
        best=tuple(QueryChange(**change) for change in values["best"]),
    )


def _scores(values: Mapping[System, Any]) -> dict[System, Score]:
    return {
        name: Score(score["system"], {metric: Estimate(**estimate) for metric, estimate in score["metrics"].items()})
        for name, score in values.items()
    }


def _hubness(values: Mapping[str, Any]) -> Hubness:
    changes = {name: Estimate(**estimate) for name, estimate in values["changes"].items()}
    return Hubness(**{**values, "scores": _scores(values["scores"]), "changes": changes})


def _rival(values: Mapping[str, Any]) -> Rival:
    metrics = {metric: Estimate(**estimate) for metric, estimate in values["metrics"].items()}
    return Rival(**{**values, "metrics": metrics, "verdict": _verdict(values["verdict"])})


def _direction(values: Mapping[str, Any]) -> DirectionResult:
    slices = {
        column: {
            value: {system: Estimate(**estimate) for system, estimate in systems.items()}
            for value, systems in by_value.items()
        }
        for column, by_value in values["slices"].items()
    }
    return DirectionResult(
        **{
            **values,
            "scores": _scores(values["scores"]),
            "gain": None if values["gain"] is None else Estimate(**values["gain"]),
            "flips": None if values["flips"] is None else _flips(values["flips"]),
            "verdict": _verdict(values["verdict"]),
            "slices": slices,
            "hubness": None if values.get("hubness") is None else _hubness(values["hubness"]),
            "rivals": {name: _rival(rival) for name, rival in values.get("rivals", {}).items()},
        }
    )
