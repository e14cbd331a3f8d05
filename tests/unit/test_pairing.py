"""Pairs: the same items on both sides, and splits through which nothing leaks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.embeddings import Embeddings
from crossfade.embeddings.collection import Collection
from crossfade.errors import PairingError, SpaceMismatch
from crossfade.pairing import Pairs, pair
from crossfade.spaces import Space

OLD, NEW = Space(model="old", dimension=2), Space(model="new", dimension=3)


def made(ids: Any, space: Space, modality: Any = "image") -> Embeddings:
    """Vectors that tell which item they are: the first component is a number made of the id."""
    ids = [str(i) for i in ids]
    vectors = np.ones((len(ids), space.dimension), np.float32)
    vectors[:, 0] = [sum(map(ord, i)) for i in ids]
    return Embeddings(ids, vectors, space, modality)


def linked(images: list[str], texts: list[str], links: Any) -> Pairs:
    sides = [[made(images, space), made(texts, space, "text")] for space in (OLD, NEW)]
    return pair(*sides, links=links)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Images, texts, and any links between them: texts of no image, of one, of several."""
    images = [f"i{n}" for n in range(draw(st.integers(1, 12)))]
    texts = [f"t{n}" for n in range(draw(st.integers(1, 20)))]
    links = draw(st.lists(st.tuples(st.sampled_from(texts), st.sampled_from(images)), max_size=25))
    return images, texts, links


def groups_slowly(images: list[str], texts: list[str], links: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(modality, id) → item: merge linked items until nothing changes; the least image names them."""
    item = {("image", i): {("image", i)} for i in images} | {("text", t): {("text", t)} for t in texts}
    for text, image in links:
        union = item["text", text] | item["image", image]
        for member in union:
            item[member] = union
    named = {}
    for member, union in item.items():
        of_images = [name for modality, name in union if modality == "image"]
        named[member] = min(of_images) if of_images else member[1]
    return named


def test_items_are_joined_by_id_in_the_new_order() -> None:
    pairs = pair(made("abcde", OLD), made("xedcb", NEW))
    (part,) = pairs.parts
    assert part.ids.tolist() == list("edcb")
    assert part.target.ids.tolist() == list("edcb")
    assert part.source.matrix()[:, 0].tolist() == part.target.matrix()[:, 0].tolist()
    assert (pairs.source, pairs.target) == (NEW, OLD)
    assert len(pairs) == 4
    assert pairs.modalities == ("image",)
    assert pairs.part("text") is None


def test_the_same_items_in_the_same_order_are_taken_as_they_are() -> None:
    old, new = made("abc", OLD), made("abc", NEW)
    (part,) = pair(old, new).parts
    assert part.source is new
    assert part.target is old


@pytest.mark.parametrize("prefetch", [False, True])
def test_blocks_cover_every_pair(prefetch: bool) -> None:
    pairs = linked([f"i{n}" for n in range(5)], [f"t{n}" for n in range(7)], [])
    blocks = list(pairs.blocks(3, prefetch=prefetch))
    assert [(block.modality, len(block.source)) for block in blocks] == [
        ("image", 3),
        ("image", 2),
        ("text", 3),
        ("text", 3),
        ("text", 1),
    ]
    for block in blocks:
        assert block.source.shape[1] == 3
        assert block.target.shape[1] == 2
        assert np.array_equal(block.source[:, 0], block.target[:, 0])


def test_ids_that_do_not_join_say_how_many_there_are() -> None:
    with pytest.raises(PairingError, match=r"none of 3 old ids .*'a'.*4 new ones .*'w'"):
        pair(made("abc", OLD), made("wxyz", NEW))


@pytest.mark.parametrize(
    ("old", "new", "error", "says"),
    [
        (made("ab", OLD), made("ab", OLD), PairingError, "both sides live in"),
        ([made("ab", OLD), made("ab", NEW, "text")], made("ab", NEW), SpaceMismatch, "All old vectors"),
        (
            made("ab", OLD),
            [made("ab", NEW), made("ab", Space(model="x", dimension=3), "text")],
            SpaceMismatch,
            "All new",
        ),
        (made("ab", OLD), made("ab", NEW, "text"), PairingError, "old vectors are of image and the new ones of text"),
        ([made("ab", OLD), made("cd", OLD)], made("ab", NEW), PairingError, "one set a modality"),
        ([], made("ab", NEW), PairingError, "old side has no embeddings"),
        (made("ab", OLD), [], PairingError, "new side has no embeddings"),
    ],
)
def test_sides_that_make_no_pairs(old: Any, new: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        pair(old, new)


def test_equal_dimensions_are_still_two_spaces() -> None:
    other = Space(model="other", dimension=2)
    assert pair(made("ab", OLD), made("ab", other)).source == other


@pytest.mark.parametrize(
    ("links", "says"),
    [([("t0", "i9")], "known image; 1 of 1 .*'i9'"), ([("t0", "i0"), ("t9", "i0")], "known text; 1 of 2 .*'t9'")],
)
def test_links_to_items_that_nobody_has(links: Any, says: str) -> None:
    with pytest.raises(PairingError, match=says):
        linked(["i0"], ["t0"], links)


def test_links_may_name_items_that_one_side_has() -> None:
    old = [made(["i0", "i1"], OLD), made(["t0", "t1"], OLD, "text")]
    new = [made(["i0"], NEW), made(["t0"], NEW, "text")]
    assert len(pair(old, new, links=[("t1", "i1"), ("t0", "i0")])) == 2
    assert len(pair(new, old, links=[("t1", "i1"), ("t0", "i0")])) == 2


@given(worlds())
def test_groups_are_the_connected_items(world: tuple[list[str], list[str], list[tuple[str, str]]]) -> None:
    pairs, slow = linked(*world), groups_slowly(*world)
    for part in pairs.parts:
        expected = [slow[part.modality, name] for name in part.ids.tolist()]
        assert pairs.groups(part).tolist() == expected


@settings(max_examples=60)
@given(worlds(), st.integers(0, 5), st.floats(0.2, 0.8))
def test_no_item_is_on_both_sides(world: Any, seed: int, share: float) -> None:
    pairs, slow = linked(*world), groups_slowly(*world)
    try:
        split = pairs.split(held_out=share, seed=seed)
    except PairingError:
        return  # too few items to fill both sides
    sides = [
        {slow[part.modality, name] for part in side.parts for name in part.ids.tolist()}
        for side in (split.train, split.held_out)
    ]
    assert not sides[0] & sides[1]
    assert len(split.train) + len(split.held_out) == len(pairs)
    assert not set(split.train.item_keys()) & set(split.held_out.item_keys())


@settings(max_examples=40)
@given(worlds(), st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_the_order(world: Any, random: Any) -> None:
    images, texts, links = world
    first = linked(images, texts, links)
    shuffled = [random.sample(side, len(side)) for side in (images, texts, links)]
    second = linked(*shuffled)
    for part, other in zip(first.parts, second.parts, strict=True):
        folds = dict(zip(part.ids.tolist(), first.folds(part, count=5, seed=1).tolist(), strict=True))
        assert folds == dict(zip(other.ids.tolist(), second.folds(other, count=5, seed=1).tolist(), strict=True))
        assert set(folds.values()) <= set(range(5))
    assert (first.item_keys() == second.item_keys()).all()


def test_folds_do_not_depend_on_the_other_pairs() -> None:
    names = [f"i{n}" for n in range(50)]
    whole, part = linked(names, ["t"], []), linked(names[10:], ["t"], [])
    assert np.array_equal(whole.folds(whole.parts[0], count=5, seed=0)[10:], part.folds(part.parts[0], count=5, seed=0))


def many(count: int = 4000) -> Pairs:
    """Two texts an image."""
    images = [f"i{n}" for n in range(count)]
    texts = [f"t{n}" for n in range(2 * count)]
    return linked(images, texts, [(f"t{n}", f"i{n // 2}") for n in range(2 * count)])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_split_has_the_share_that_was_asked_for(share: float) -> None:
    held_out = many().split(held_out=share).held_out
    spread = 5 * np.sqrt(share * (1 - share) / 4000)
    for part, size in zip(held_out.parts, (4000, 8000), strict=True):
        assert abs(len(part) / size - share) < spread


def test_folds_are_of_equal_size_and_seeds_differ() -> None:
    pairs = many()
    folds = [pairs.folds(pairs.parts[0], count=4, seed=seed) for seed in (0, 1)]
    for fold in folds:
        assert np.abs(np.bincount(fold) - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)
    assert abs(float((folds[0] == folds[1]).mean()) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)


def test_a_side_is_divided_again_with_the_same_seed() -> None:
    """Choosing inside of the training side must not find that the first division has decided everything."""
    train = many().split(held_out=0.2, seed=0).train
    again = train.split(held_out=0.2, seed=0)
    for part, size in zip(again.held_out.parts, (len(train.parts[0]), len(train.parts[1])), strict=True):
        assert abs(len(part) / size - 0.2) < 5 * np.sqrt(0.16 / 3200)
    sizes = np.bincount(train.folds(train.parts[0], count=5, seed=0), minlength=5)
    assert np.abs(sizes / len(train.parts[0]) - 0.2).max() < 5 * np.sqrt(0.16 / 3200)
    images, texts = (set(again.held_out.groups(part).tolist()) for part in again.held_out.parts)
    assert images == texts
    assert again.train.links == train.links


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_shares_that_are_none(share: float) -> None:
    with pytest.raises(PairingError, match="between 0 and 1"):
        many(10).split(held_out=share)


def test_one_item_cannot_be_split() -> None:
    with pytest.raises(PairingError, match="3 pairs are too few"):
        linked(["i"], ["t", "u"], [("t", "i"), ("u", "i")]).split()


def test_an_image_and_a_text_of_one_id_are_two_items() -> None:
    pairs = linked(["a"], ["a"], [])
    assert len(pairs.item_keys()) == 2
    assert len(linked(["a", "b"], ["c"], [("c", "b")]).item_keys()) == 3


def asked(names: list[str], queries: list[str], links: Any, *, texts: list[str] | None = None) -> Pairs:
    """Image pairs (and text pairs), and text queries that the new model alone has seen."""
    old, new = [made(names, OLD)], [made(names, NEW)]
    if texts:
        old, new = [*old, made(texts, OLD, "text")], [*new, made(texts, NEW, "text")]
    return pair(old, new, links=links, queries=made(queries, NEW, "text"))


def test_queries_stand_beside_the_pairs_and_are_none() -> None:
    pairs = asked(["i0", "i1"], ["q0", "q1", "q2"], [])
    assert (len(pairs), pairs.modalities) == (2, ("image",))
    assert pairs.part("text") is None
    (queries,) = pairs.queries
    assert (queries.ids.tolist(), queries.space, queries.modality) == (["q0", "q1", "q2"], NEW, "text")
    assert [block.modality for block in pairs.blocks()] == ["image"]
    assert not pair(made("ab", OLD), made("ab", NEW)).queries


def test_queries_that_are_paired_are_no_queries() -> None:
    pairs = asked(["i0"], ["t0", "q0", "t1"], [("q0", "i0")], texts=["t0", "t1"])
    (queries,) = pairs.queries
    assert queries.ids.tolist() == ["q0"]
    assert queries.matrix()[0, 0] == sum(map(ord, "q0"))
    assert asked(["i0"], ["t1", "t0"], [("t0", "i0")], texts=["t0", "t1"]).queries == ()
    assert [q.ids.tolist() for q in asked(["i0"], ["i0"], []).queries] == [["i0"]], "a text is no image of that id"


@pytest.mark.parametrize(
    ("queries", "error", "says"),
    [
        (made("q", OLD, "text"), SpaceMismatch, "The queries.*Encode them with the new model"),
        ([made("q", NEW, "text"), made("r", NEW, "text")], PairingError, "query side may hold one set a modality"),
        ([made("q", NEW, "text"), made("r", OLD)], SpaceMismatch, "All query vectors"),
    ],
)
def test_queries_of_another_space_or_given_twice(queries: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=f"(?s){says}"):
        pair(made("ab", OLD), made("ab", NEW), queries=queries)


def test_links_may_name_queries_and_nothing_unknown() -> None:
    pairs = asked(["i0", "i1"], ["q0", "q1"], [("q0", "i1")])
    assert pairs.groups(pairs.queries[0]).tolist() == ["i1", "q1"]
    with pytest.raises(PairingError, match=r"known text; 1 of 1 .*'q9'"):
        asked(["i0"], ["q0"], [("q9", "i0")])


def test_the_links_of_a_query_collection_join_those_of_the_new_one() -> None:
    new = Collection({"image": made(["i0", "i1"], NEW), "text": made(["t0"], NEW, "text")}, (("t0", "i0"),))
    old = Collection({"image": made(["i0", "i1"], OLD), "text": made(["t0"], OLD, "text")})
    logged = Collection({"text": made(["q0"], NEW, "text")}, (("q0", "i1"),))
    assert pair(old, new, queries=logged).links == (("t0", "i0"), ("q0", "i1"))
    assert pair(old, new, queries=logged, links=[("q0", "i0")]).links == (("q0", "i0"),)


def test_a_split_divides_queries_with_their_items() -> None:
    images, queries = [f"i{n}" for n in range(400)], [f"q{n}" for n in range(800)]
    pairs = asked(images, queries, [(f"q{n}", f"i{n // 2}") for n in range(600)])
    split = pairs.split(held_out=0.3, seed=4)
    sides = []
    for side in (split.train, split.held_out):
        (part,), (held,) = side.parts, side.queries
        linked = {f"i{int(q[1:]) // 2}" for q in held.ids.tolist() if int(q[1:]) < 600}
        assert linked <= set(part.ids.tolist())
        assert held.matrix()[:, 0].tolist() == [sum(map(ord, q)) for q in held.ids.tolist()]
        sides.append(set(held.ids.tolist()))
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(queries)
    assert abs(len(sides[1]) / 800 - 0.3) < 0.1


def test_a_side_without_queries_has_none() -> None:
    pairs = asked([f"i{n}" for n in range(40)], ["q0"], [])
    split = pairs.split(held_out=0.5)
    assert sorted(len(side.queries) for side in (split.train, split.held_out)) == [0, 1]


def test_keys_of_items_name_the_queries_too() -> None:
    with_queries, without = asked(["i0", "i1"], ["q0"], []), asked(["i0", "i1"], ["q0"], [], texts=["q0"])
    assert len(with_queries.item_keys()) == 3
    assert np.array_equal(with_queries.item_keys(), without.item_keys()), "paired or asked, it is the same text"
    assert len(replace(with_queries, queries=()).item_keys()) == 2
