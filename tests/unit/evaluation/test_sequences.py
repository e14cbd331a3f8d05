"""The matrix of a sequence of versions, AC, AM and the cost of chains, against the slow way of computing them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import sequences
from hypothesis import given
from hypothesis import strategies as st

from crossfade.embeddings import Embeddings
from crossfade.errors import EvaluationError, SpaceMismatch
from crossfade.evaluation import (
    ModelVersion,
    Relevance,
    SequenceDirection,
    SequenceEvaluation,
    average_compatibility,
    average_multimodel_accuracy,
    compatibility_matrix,
    evaluate_sequence,
)
from crossfade.evaluation.ways import Ways
from crossfade.methods import Adapter, Identity, Ridge, Slerp
from crossfade.pairing import pair
from crossfade.spaces import Space

TRAIN, TEST = slice(0, 240), slice(240, 300)


@pytest.fixture(scope="module")
def world() -> sequences.Versions:
    return sequences.versions((12, 14, 16, 20), (0.9, 0.6, 0.4, 0.2))


def shown(world: sequences.Versions, items: slice = TEST) -> list[ModelVersion]:
    return [ModelVersion(world.part(v, items), world.part(v, items)) for v in range(len(world.sets))]


@pytest.fixture(scope="module")
def consecutive(world: sequences.Versions) -> list[Adapter]:
    """v2 → v1, v3 → v2, v4 → v3."""
    return [Ridge(penalty=1.0).fit(world.pairs(v, v - 1, TRAIN)) for v in (1, 2, 3)]


@pytest.fixture(scope="module")
def direct(world: sequences.Versions) -> list[Adapter]:
    """v3 → v1, v4 → v1, v4 → v2."""
    return [Ridge(penalty=1.0).fit(world.pairs(newer, older, TRAIN)) for newer, older in ((2, 0), (3, 0), (3, 1))]


@pytest.fixture(scope="module")
def links(world: sequences.Versions) -> Relevance:
    return Relevance.from_links(world.links)


@pytest.fixture(scope="module")
def found(
    world: sequences.Versions, consecutive: list[Adapter], direct: list[Adapter], links: Relevance
) -> SequenceEvaluation:
    return evaluate_sequence(shown(world), [*direct, *consecutive], relevant=links, resamples=400)


def text_to_image(found: SequenceEvaluation) -> SequenceDirection:
    return next(direction for direction in found.directions if direction.name == "text→image")


def right(world: sequences.Versions, mapped: np.ndarray, older: int) -> np.ndarray:
    """Which test captions find their image first in version ``older``'s gallery (numbered from 0): [q] bool."""
    gallery = world.part(older, TEST)[0].matrix().astype(np.float64)
    similar = mapped.astype(np.float64) @ gallery.T
    return similar.argmax(axis=1) == np.arange(len(mapped)) // sequences.CAPTIONS


def test_the_matrix_is_the_slow_one(
    world: sequences.Versions, found: SequenceEvaluation, consecutive: list[Adapter], direct: list[Adapter]
) -> None:
    texts = [world.part(v, TEST)[1].matrix() for v in range(4)]
    serving = {(1, 0): consecutive[0], (2, 1): consecutive[1], (3, 2): consecutive[2]}
    serving |= {(2, 0): direct[0], (3, 0): direct[1], (3, 1): direct[2]}
    expected = np.full((4, 4), np.nan)
    for i in range(4):
        for j in range(i + 1):
            mapped = texts[i] if i == j else serving[i, j].map(texts[i], "text")
            expected[i, j] = right(world, mapped, j).mean()
    result = text_to_image(found)
    np.testing.assert_allclose(result.matrix(), expected)
    assert found.metric == "R@1"
    assert result.queries == 120
    assert result.compatibility.value == average_compatibility(expected)
    assert result.accuracy.value == pytest.approx(average_multimodel_accuracy(expected))
    for cell in result.cells:
        assert cell.score.low <= cell.score.value <= cell.score.high
        assert cell.way == ((cell.newer,) if cell.newer == cell.older else (cell.newer, cell.older))
        if cell.gain is not None:
            i, j = cell.newer - 1, cell.older - 1
            assert cell.gain.value == pytest.approx(expected[i, j] - expected[j, j])


def test_it_agrees_with_the_matrix_of_mapped_queries(
    world: sequences.Versions, found: SequenceEvaluation, consecutive: list[Adapter], direct: list[Adapter],
    links: Relevance,
) -> None:  # fmt: skip
    adapters = {(a.source, a.target): a for a in (*consecutive, *direct)}
    asked = [world.part(v, TEST)[1] for v in range(4)]
    galleries = [world.part(v, TEST)[0] for v in range(4)]
    queries = [
        [asked[i] if i == j else adapters[asked[i].space, galleries[j].space].transform(asked[i]) for j in range(i + 1)]
        for i in range(4)
    ]
    expected = compatibility_matrix(queries, galleries, relevant=links, metric="R@1")
    np.testing.assert_allclose(text_to_image(found).matrix(), expected)


def test_the_cost_of_chains_is_the_slow_one(
    world: sequences.Versions, found: SequenceEvaluation, consecutive: list[Adapter], direct: list[Adapter]
) -> None:
    texts = [world.part(v, TEST)[1].matrix() for v in range(4)]
    expected = {}
    for (i, j), straight in zip(((2, 0), (3, 0), (3, 1)), direct, strict=True):
        chained = texts[i]
        for step in range(i, j, -1):
            chained = consecutive[step - 1].map(chained, "text")
        at_once = straight.map(texts[i], "text")
        drop = right(world, at_once, j).mean() - right(world, chained, j).mean()
        expected[i + 1, j + 1] = (drop, float((chained.astype(np.float64) * at_once).sum(axis=1).mean()))
    result = text_to_image(found)
    measured = {(c.newer, c.older): c.chain for c in result.cells if c.chain is not None}
    assert set(measured) == set(expected)
    for cell, (drop, cosine) in expected.items():
        chain = measured[cell]
        assert chain.way == tuple(range(cell[0], cell[1] - 1, -1))
        assert chain.drop.value == pytest.approx(drop)
        assert chain.cosine.value == pytest.approx(cosine, abs=1e-6)
        assert chain.cosine.low <= chain.cosine.value <= chain.cosine.high
    two, three = result.growth
    assert (two.steps, two.cells, three.steps, three.cells) == (2, 2, 3, 1)
    assert two.drop.value == pytest.approx((expected[3, 1][0] + expected[4, 2][0]) / 2)
    assert two.cosine.value == pytest.approx((expected[3, 1][1] + expected[4, 2][1]) / 2, abs=1e-6)
    assert three.drop.value == pytest.approx(expected[4, 1][0])
    assert three.cosine.value < two.cosine.value


def test_chains_serve_where_no_direct_adapter_is_given(
    world: sequences.Versions, consecutive: list[Adapter], links: Relevance
) -> None:
    result = text_to_image(evaluate_sequence(shown(world), consecutive, relevant=links, resamples=200))
    ways = {(c.newer, c.older): c.way for c in result.cells}
    assert ways[4, 1] == (4, 3, 2, 1)
    assert ways[3, 1] == (3, 2, 1)
    assert all(cell.chain is None for cell in result.cells)
    assert result.growth == ()
    composed = consecutive[2].then(consecutive[1]).then(consecutive[0])
    mapped = composed.transform(world.part(3, TEST)[1]).matrix()
    assert result.matrix()[3, 0] == right(world, mapped, 0).mean()


def test_chains_as_adapters_are_direct_ones(
    world: sequences.Versions, consecutive: list[Adapter], links: Relevance
) -> None:
    """A composed adapter beside its own members drops nothing."""
    chain = consecutive[1].then(consecutive[0])
    result = text_to_image(evaluate_sequence(shown(world)[:3], [*consecutive[:2], chain], relevant=links))
    (growth,) = result.growth
    assert (growth.steps, growth.drop.value, growth.drop.low, growth.drop.high) == (2, 0.0, 0.0, 0.0)
    assert growth.cosine.value == pytest.approx(1.0)


def test_intervals_are_those_of_resampled_captions_of_one_image_together(found: SequenceEvaluation) -> None:
    """AM's interval from cells that are all of the same queries: resampling is of 60 images, not of 120 captions."""
    result = text_to_image(found)
    worst = max(cell.score.value for cell in result.cells)
    width = max(cell.score.high - cell.score.low for cell in result.cells)
    assert width > 2 * 1.96 * np.sqrt(worst * (1 - worst) / 120)
    assert result.accuracy.high - result.accuracy.low < width


def test_same_seed_gives_the_same_result(
    world: sequences.Versions, consecutive: list[Adapter], links: Relevance
) -> None:
    once, again = (evaluate_sequence(shown(world), consecutive, relevant=links, resamples=200, seed=3) for _ in "ab")
    assert once == again
    assert json.loads(json.dumps(once.to_dict()))["directions"][0]["cells"][0]["score"]["value"] > 0


def test_the_order_of_rows_and_of_adapters_is_irrelevant(
    world: sequences.Versions, consecutive: list[Adapter], links: Relevance
) -> None:
    versions = shown(world)
    order = np.random.default_rng(0).permutation(60)
    shuffled = [e.select(order) if e.modality == "image" else e for e in versions[2].queries]  # type: ignore[union-attr]
    mixed = [*versions[:2], replace(versions[2], queries=shuffled), versions[3]]
    a = evaluate_sequence(versions, consecutive, relevant=links, resamples=200)
    b = evaluate_sequence(mixed, consecutive[::-1], relevant=links, resamples=200)
    for one, other in zip(a.directions, b.directions, strict=True):
        np.testing.assert_allclose(one.matrix(), other.matrix())


def test_galleries_may_differ_and_each_cell_counts_its_own_queries(
    world: sequences.Versions, consecutive: list[Adapter], links: Relevance
) -> None:
    """v1 stored only 40 of the 60 images: a third of the captions has no right answer there."""
    versions = shown(world)[:2]
    few = [versions[0].gallery[0].select(list(range(40))), versions[0].gallery[1]]
    found = evaluate_sequence(
        [replace(versions[0], gallery=few), versions[1]], consecutive[:1], relevant=links, resamples=200
    )
    result = text_to_image(found)
    assert result.queries == 120
    assert any("40 of 120 queries have no right answer in the gallery of v1" in w for w in found.warnings)
    mapped = consecutive[0].map(world.part(1, TEST)[1].matrix()[:80], "text")
    similar = mapped @ few[0].matrix().T
    assert result.matrix()[1, 0] == (similar.argmax(axis=1) == np.arange(80) // 2).mean()
    own = world.part(1, TEST)[1].matrix()
    assert result.matrix()[1, 1] == right(world, own, 1).mean()


def test_leaks_are_named(world: sequences.Versions, consecutive: list[Adapter], links: Relevance) -> None:
    clean = evaluate_sequence(shown(world), consecutive, relevant=links, resamples=100)
    assert clean.warnings == ()
    leaking = evaluate_sequence(shown(world, slice(200, 300)), consecutive, relevant=links, resamples=100)
    assert any("Leakage in text→image" in warning for warning in leaking.warnings)
    anonymous = Ridge(penalty=1.0).fit(world.pairs(1, 0, TRAIN))
    anonymous.provenance = None
    silent = evaluate_sequence(shown(world)[:2], [anonymous], relevant=links, resamples=100)
    assert any("1 of 1 adapters" in warning for warning in silent.warnings)


def test_a_modality_that_a_step_does_not_map_is_left_out_with_a_warning(
    world: sequences.Versions, consecutive: list[Adapter], links: Relevance
) -> None:
    images_only = Ridge(penalty=1.0).fit(pair(world.sets[0]["image"], world.sets[1]["image"]))
    found = evaluate_sequence(shown(world)[:3], [images_only, consecutive[1]], relevant=links, resamples=100)
    assert [direction.name for direction in found.directions] == ["image→text"]
    assert any("text→image is left out: version 1 from 2" in warning for warning in found.warnings)


def test_a_gap_a_stranger_and_a_wrong_order_are_refused(
    world: sequences.Versions, consecutive: list[Adapter], direct: list[Adapter], links: Relevance
) -> None:
    versions = shown(world)
    with pytest.raises(EvaluationError, match="none lead from version 2 to 1"):
        evaluate_sequence(versions, consecutive[1:], relevant=links)
    with pytest.raises(SpaceMismatch, match="none of"):
        evaluate_sequence(versions[:3], consecutive, relevant=links)
    with pytest.raises(EvaluationError, match="oldest to the newest"):
        evaluate_sequence(versions[::-1], consecutive, relevant=links)
    with pytest.raises(EvaluationError, match="two from version 2 to 1"):
        evaluate_sequence(versions, [*consecutive, consecutive[0]], relevant=links)
    with pytest.raises(EvaluationError, match="at least two versions; found 1"):
        evaluate_sequence(versions[:1], [], relevant=links)
    with pytest.raises(EvaluationError, match="a space of its own"):
        evaluate_sequence([versions[0], versions[0]], [], relevant=links)
    slerp = Slerp(weight=0.5).fit(world.pairs(1, 0))
    with pytest.raises(EvaluationError, match="two encoders"):
        evaluate_sequence(versions[:2], [slerp], relevant=links)


def test_queries_and_galleries_that_do_not_fit_are_refused(
    world: sequences.Versions, consecutive: list[Adapter], links: Relevance
) -> None:
    first, second = shown(world)[:2]
    steps = consecutive[:1]
    fewer = replace(second, queries=world.part(1, slice(240, 270)))
    with pytest.raises(EvaluationError, match=r"30 of 60 image queries are not among those of v2, .* 'image-270'"):
        evaluate_sequence([first, fewer], steps, relevant=links)
    with pytest.raises(SpaceMismatch, match="The queries of newer"):
        evaluate_sequence([first, ModelVersion(first.queries, second.gallery, "newer")], steps, relevant=links)
    with pytest.raises(EvaluationError, match="v2 has no gallery"):
        evaluate_sequence([first, replace(second, gallery=[])], steps, relevant=links)
    with pytest.raises(EvaluationError, match="No direction can be evaluated"):
        evaluate_sequence([first, second], steps, relevant=Relevance.from_links([("elsewhere", "nowhere")]))


def test_labels_decide_by_mean_average_precision(world: sequences.Versions, consecutive: list[Adapter]) -> None:
    labels = {f"image-{i}": i % 5 for i in range(300)}
    versions = [ModelVersion(v.queries[0], v.gallery[0]) for v in shown(world)[:2]]  # type: ignore[index]
    found = evaluate_sequence(versions, consecutive[:1], relevant=Relevance.from_labels(labels), resamples=100)
    assert found.metric == "mAP"
    assert [direction.name for direction in found.directions] == ["image→image"]


def identities(count: int, edges: set[tuple[int, int]]) -> tuple[list[Space], list[Adapter]]:
    spaces = [Space(model=f"v{i}", dimension=2, modalities=("image",)) for i in range(1, count + 1)]
    one = [Embeddings(["a"], np.ones((1, 2)), space, "image") for space in spaces]
    return spaces, [Identity().fit(pair(one[j - 1], one[i - 1])) for i, j in sorted(edges)]


@given(st.integers(2, 5), st.sets(st.tuples(st.integers(1, 5), st.integers(1, 5))))
def test_ways_are_the_shortest_and_the_longest_of_all(count: int, extra: set[tuple[int, int]]) -> None:
    edges = {(i, i - 1) for i in range(2, count + 1)} | {(i, j) for i, j in extra if count >= i > j}
    ways = Ways(*identities(count, edges))

    def every(i: int, j: int) -> list[tuple[int, ...]]:
        if i == j:
            return [(j,)]
        return [(i, *rest) for a, b in edges if a == i and b >= j for rest in every(b, j)]

    for i in range(1, count + 1):
        for j in range(1, i + 1):
            lengths = [len(way) for way in every(i, j)]
            for way, wanted in (
                (ways.shortest(i, j, "image"), min(lengths)),
                (ways.longest(i, j, "image"), max(lengths)),
            ):
                assert len(way) == wanted
                assert (way[0], way[-1]) == (i, j)
                assert set(pairwise(way)) <= edges


def test_a_direction_that_a_later_version_does_not_bring_is_left_out_with_a_warning(
    world: sequences.Versions, consecutive: list[Adapter], links: Relevance
) -> None:
    first, second = shown(world)[:2]
    images, _ = world.part(1, TEST)
    found = evaluate_sequence([first, replace(second, gallery=images)], consecutive[:1], relevant=links, resamples=100)
    assert [direction.name for direction in found.directions] == ["text→image"]
    assert found.warnings == ("image→text is left out: v2 did not bring both sides of it.",)
