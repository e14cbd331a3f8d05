"""The words that a report uses, as its last section explains them."""

from __future__ import annotations

__all__ = ["GLOSSARY"]

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("old, new", "The model that filled the gallery; the model that should answer queries from now on."),
    ("gallery, query", "What is searched; what searches it."),
    ("mapped", "The new model's vector after the adapter has carried it into the old model's space."),
    ("re-indexed", "The whole gallery embedded again with the new model: the price that an upgrade avoids."),
    ("space", "What a vector belongs to: model, checkpoint, dimension, preprocessing. The fingerprint names it."),
    (
        "compatible",
        "M(mapped/old) > M(old/old), strictly, on held-out queries, with an interval of the difference above zero.",
    ),
    (
        "undecided",
        "The interval of the difference holds zero: with this many queries nobody can say. It is not a yes.",
    ),
    ("share of the gap closed", "Update gain: (M(mapped/old) − M(old/old)) / (M(new/new) − M(old/old))."),
    ("negative flip", "A query that the old system answers right and the upgraded one answers wrong."),
    ("R@K", "Share of queries with any right item among the first K."),
    ("MRR", "Mean over queries of one divided by the rank of the first right item."),
    ("mAP", "Mean over queries of the average precision of the ranking."),
    ("CMC@K", "Share of queries whose label is found among the first K."),
    ("nDCG@10", "Graded relevance of the first ten, discounted by rank, against the best possible order."),
    ("interval", "Where the value would fall for other queries of the same kind: a bootstrap over queries."),
)
