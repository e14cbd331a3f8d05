"""A small evaluation with hand-written numbers, and real vectors, images and texts for its material."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image, ImageDraw

from crossfade.embeddings.core import Embeddings
from crossfade.evaluation.relevance import Relevance
from crossfade.evaluation.result import (
    DirectionResult,
    Estimate,
    Evaluation,
    Flips,
    QueryChange,
    Score,
    System,
    Verdict,
)
from crossfade.methods.base import Adapter
from crossfade.methods.procrustes import Procrustes
from crossfade.pairing import pair
from crossfade.reporting import Material, collect_material
from crossfade.spaces import Space

ITEMS = 40
HOSTILE = "<script>alert('caption')</script> | `code` & \"quotes\""


@dataclass(frozen=True)
class World:
    """Vectors of the same images and texts under both models, an adapter between them, and what is right for what."""

    old: tuple[Embeddings, Embeddings]
    new: tuple[Embeddings, Embeddings]
    adapter: Adapter
    relevant: Relevance

    def text_of(self, identifier: str) -> str:
        return HOSTILE if identifier == "t3" else f"caption {identifier}"

    def load_image(self, identifier: str) -> Image.Image:
        image = Image.new("RGB", (64, 48), "white")
        ImageDraw.Draw(image).rectangle((5, 5, 10 + int(identifier[1:]), 30), fill="teal")
        return image


def make_world(*, new_dimension: int) -> World:
    generator = np.random.default_rng(3)
    meaning = generator.standard_normal((ITEMS, 12)).astype(np.float32)
    old_space = Space(model="acme/old", dimension=12, normalized=False, revision="2021")
    new_space = Space(model="acme/new", dimension=new_dimension, normalized=False)
    turn = np.linalg.qr(generator.standard_normal((new_dimension, new_dimension)))[0][:12].astype(np.float32)

    def noisy(amount: float) -> np.ndarray:
        return meaning + amount * generator.standard_normal(meaning.shape).astype(np.float32)

    images, texts = [f"i{n}" for n in range(ITEMS)], [f"t{n}" for n in range(ITEMS)]
    old = (Embeddings(images, noisy(0.6), old_space, "image"), Embeddings(texts, noisy(0.9), old_space, "text"))
    new = (
        Embeddings(images, noisy(0.3) @ turn, new_space, "image"),
        Embeddings(texts, noisy(0.3) @ turn, new_space, "text"),
    )
    adapter = Procrustes().fit(pair(old, new))
    return World(old, new, adapter, Relevance.from_links([(f"t{n}", f"i{n}") for n in range(ITEMS)]))


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.0213, value + 0.0327)


def scores(*systems: System, start: float) -> dict[System, Score]:
    return {
        system: Score(
            system, {m: estimate(start + 0.061 * i + 0.1207 * j) for j, m in enumerate(("R@1", "R@5", "R@10", "mAP"))}
        )
        for i, system in enumerate(systems)
    }


def make_direction(name: str, *, start: float) -> DirectionResult:
    query = name[0]
    return DirectionResult(
        name=name,
        queries=1234,
        gallery=5678,
        metric="R@1",
        scores=scores("old/old", "mapped/old", "old/mapped", "new/new", start=start),
        gain=Estimate(0.4242, 0.3131, 0.5353),
        flips=Flips(
            "R@1",
            Estimate(0.0417, 0.0312, 0.0523),
            Estimate(0.2018, 0.1834, 0.2219),
            (QueryChange(f"{query}3", 1, 37, 2), QueryChange(f"{query}5", 1, 21, None)),
            (QueryChange(f"{query}7", 43, 1, 1),),
        ),
        verdict=Verdict("undecided", "R@1", Estimate(0.0153, -0.0041, 0.0347), 1234, 8765, "Nobody can say."),
        slices={"script": {"Latin": {"old/old": estimate(0.3), "mapped/old": estimate(0.41)}, "<u>": {}}},
        slice_sizes={"script": {"Latin": 777, "<u>": 3}},
    )


@pytest.fixture(scope="session")
def evaluation() -> Evaluation:
    directions = (make_direction("text→image", start=0.0731), make_direction("image→text", start=0.1579))
    return Evaluation(
        source=Space(model="acme/new", dimension=12, normalized=False).to_dict(),
        target=Space(model="acme/old", dimension=12, normalized=False, revision="2021").to_dict(),
        method="procrustes",
        config={"center": "modality", "rank": 61, "lambda": 0.0375},
        directions=directions,
        verdict=Verdict("undecided", "R@1", None, 2468, 4321, "Both directions are undecided."),
        warnings=("822 of 1,234 queries were fitted on.",),
        level=0.9,
        resamples=2001,
        seed=17,
    )


@pytest.fixture(scope="session")
def minimal() -> Evaluation:
    """No old queries: nothing to compare with, no gain, no flips, no slices, no warnings."""
    verdict = Verdict("undecided", "R@1", None, 50, None, "old/old was not measured.")
    direction = DirectionResult("text→text", 50, 60, "R@1", scores("mapped/old", start=0.2), None, None, verdict)
    space = Space(model="m", dimension=3)
    return Evaluation(space.to_dict(), space.to_dict(), "identity", {}, (direction,), verdict, (), 0.95, 100, 0)


@pytest.fixture(scope="session")
def world() -> World:
    return make_world(new_dimension=12)


@pytest.fixture(scope="session")
def wider_world() -> World:
    return make_world(new_dimension=20)


@pytest.fixture(scope="session")
def material(world: World, evaluation: Evaluation) -> Material:
    return collect_material(
        world.adapter,
        evaluation,
        queries=world.new,
        gallery=world.old,
        old_queries=world.old,
        new_gallery=world.new,
        relevant=world.relevant,
        load_image=world.load_image,
        text_of=world.text_of,
        data={"queries": "a small world"},
        examples=5,
    )
