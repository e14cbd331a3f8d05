"""Two-stage retrieval: the adapter recalls from the old gallery, the new model re-ranks in its own space.

::

    new query ──adapter──▶ old space ──search──▶ N candidates ──new vectors, lazily and once──▶ re-ranked in new space

It breaks the ceiling of the stored vectors at the price of embedding only what queries touch. :class:`TwoStage` serves it,
:class:`VectorCache` keeps the candidates' new vectors, :func:`evaluate_two_stage` says what N gains and costs.
"""

from crossfade.two_stage.cache import VectorCache
from crossfade.two_stage.evaluation import evaluate_two_stage
from crossfade.two_stage.items import ItemEmbedder
from crossfade.two_stage.result import Recommendation, TwoStageDirection, TwoStageEvaluation, TwoStageSize
from crossfade.two_stage.search import TwoStage, TwoStageCounts, TwoStageNeighbours
from crossfade.two_stage.traffic import Traffic

__all__ = [
    "ItemEmbedder",
    "Recommendation",
    "Traffic",
    "TwoStage",
    "TwoStageCounts",
    "TwoStageDirection",
    "TwoStageEvaluation",
    "TwoStageNeighbours",
    "TwoStageSize",
    "VectorCache",
    "evaluate_two_stage",
]
