"""Upgrades of live collections: plan, shadow, cutover, backfill, finish; and rollback from wherever one is."""

from __future__ import annotations

from crossfade.upgrading.backfilling import Backfilled, Pace
from crossfade.upgrading.entries import Transition
from crossfade.upgrading.planning import Expected, Plan, plan_upgrade
from crossfade.upgrading.reranking import Reranker
from crossfade.upgrading.searching import Searcher
from crossfade.upgrading.shadowing import Shadow
from crossfade.upgrading.stages import SERVING, STAGES, Serving, Stage
from crossfade.upgrading.state import State
from crossfade.upgrading.steps import backfill, cutover, finish, rollback, shadow, status
from crossfade.upgrading.upgrade import Upgrade
from crossfade.upgrading.writing import Writer

__all__ = [
    "SERVING",
    "STAGES",
    "Backfilled",
    "Expected",
    "Pace",
    "Plan",
    "Reranker",
    "Searcher",
    "Serving",
    "Shadow",
    "Stage",
    "State",
    "Transition",
    "Upgrade",
    "Writer",
    "backfill",
    "cutover",
    "finish",
    "plan_upgrade",
    "rollback",
    "shadow",
    "status",
]
