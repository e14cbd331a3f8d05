"""Evaluation: exact search, metrics on ranks, intervals, and the verdict on an upgrade; NumPy alone."""

from crossfade.evaluation.compatibility import evaluate
from crossfade.evaluation.intervals import Bootstrap, more_queries_needed
from crossfade.evaluation.qrels import read_qrels
from crossfade.evaluation.ranks import PerQuery, measure
from crossfade.evaluation.relevance import Judgements, Relevance
from crossfade.evaluation.result import (
    SYSTEMS,
    DirectionResult,
    Estimate,
    Evaluation,
    Flips,
    Outcome,
    QueryChange,
    Score,
    System,
    Verdict,
)
from crossfade.evaluation.search import Neighbours, search
from crossfade.evaluation.versions import average_compatibility, average_multimodel_accuracy, compatibility_matrix

__all__ = [
    "SYSTEMS",
    "Bootstrap",
    "DirectionResult",
    "Estimate",
    "Evaluation",
    "Flips",
    "Judgements",
    "Neighbours",
    "Outcome",
    "PerQuery",
    "QueryChange",
    "Relevance",
    "Score",
    "System",
    "Verdict",
    "average_compatibility",
    "average_multimodel_accuracy",
    "compatibility_matrix",
    "evaluate",
    "measure",
    "more_queries_needed",
    "read_qrels",
    "search",
]
